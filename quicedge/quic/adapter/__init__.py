"""The one place that touches aioquic's private names.

`AdaptedConnection` is aioquic's `QuicConnection` with what an edge needs on top, behind public
names. aioquic is pinned to one minor release because of this package; its tests
(`tests/unit/quic/test_adapter.py`) are the first to read when that pin moves.
"""

from quicedge.quic.adapter.sending import Transmit
from quicedge.quic.adapter.state import ConnectionIdSource
from quicedge.quic.adapter.tracing import TracingConnection as AdaptedConnection

__all__ = ["AdaptedConnection", "ConnectionIdSource", "Transmit"]
