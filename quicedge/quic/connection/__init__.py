"""One QUIC connection, either side, without sockets or clock: composed of parts, one per file."""

from quicedge.quic.connection.core import Connection, ConnectionHandler, PathView
from quicedge.quic.connection.packer import Transmit

__all__ = ["Connection", "ConnectionHandler", "PathView", "Transmit"]
