"""Origins: HTTP/1.1, HTTP/2, connection pools, balancing, static files."""
