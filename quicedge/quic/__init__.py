"""QUIC transport on aioquic: admission, connections, tokens, TLS."""
