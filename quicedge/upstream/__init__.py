"""Origins: HTTP/1.1, HTTP/2, connection pools, servers in DNS, balancing, static files."""
