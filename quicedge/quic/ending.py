"""How a connection ended, and the delivery state of a stream."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """What ended a connection. Values are phrases for logs and statistics."""

    LOCAL_CLOSE = "closed by us"
    PEER_CLOSE = "closed by the peer"
    IDLE_TIMEOUT = "idle timeout"
    HANDSHAKE_TIMEOUT = "handshake timeout"
    STATELESS_RESET = "stateless reset"
    ABORTED = "aborted"
    """Abandoned silently: no viable path, no common version, an internal error."""

    @property
    def has_code(self) -> bool:
        """Whether an endpoint sent an error code; the other endings are silent."""
        return self in (Ending.LOCAL_CLOSE, Ending.PEER_CLOSE)


class Delivery(Enum):
    """Delivery state of what we write on a stream."""

    OPEN = "open"
    """More may be written."""
    QUEUED = "queued"
    """The end is written; some data has yet to be sent, or retransmitted."""
    IN_FLIGHT = "in flight"
    """All of it is sent, some not acknowledged."""
    DELIVERED = "delivered"
    """All of it is acknowledged, the end included."""
    RESET = "reset"
    """Reset, by us or because of the peer's STOP_SENDING."""
