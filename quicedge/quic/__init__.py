"""QUIC transport on aioquic: admission, connections, tokens, TLS."""

import quicedge.quic.plain_aioquic  # noqa: F401  before anything else of aioquic
