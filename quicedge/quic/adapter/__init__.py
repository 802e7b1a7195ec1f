"""The one place that touches aioquic's private names.

`AdaptedConnection` is aioquic's `QuicConnection` with what an edge needs on top, behind public
names. aioquic is pinned to one minor release because of this package; when that pin moves,
`make conformance` (aioquic's own tests, with our class in place of its own) is the first to run.
"""

from quicedge.quic.adapter.sending import Transmit
from quicedge.quic.adapter.state import ConnectionIdSource
from quicedge.quic.adapter.tracing import TracingConnection as AdaptedConnection

__all__ = ["AdaptedConnection", "ConnectionIdSource", "Transmit"]
