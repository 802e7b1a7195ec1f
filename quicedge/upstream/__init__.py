"""Origin connections: HTTP/1.1, HTTP/2, pools, balancing."""
