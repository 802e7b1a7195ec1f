"""One process, one event loop: listeners, connections, exchanges, drain."""
