"""quicedge as an endpoint of the QUIC interop runner: the edge as server, and a client."""
