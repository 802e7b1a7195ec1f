"""Applications as origins: ASGI 3 (https://asgi.readthedocs.io), in the worker's own process."""
