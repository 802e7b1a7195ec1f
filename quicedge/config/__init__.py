"""Configuration schema, loader, limits."""
