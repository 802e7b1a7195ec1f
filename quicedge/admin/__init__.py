"""Admin API; runs in the parent process, off the hot path."""
