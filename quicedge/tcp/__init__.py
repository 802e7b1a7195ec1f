"""TCP: sockets, TLS, the PROXY protocol, and the kernel's facts. Knows nothing of HTTP."""
