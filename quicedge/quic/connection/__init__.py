"""A sans-IO QUIC connection for both roles, composed of parts, one per module."""

from quicedge.quic.connection.core import Connection, ConnectionHandler
from quicedge.quic.connection.packer import Transmit

__all__ = ["Connection", "ConnectionHandler", "Transmit"]
