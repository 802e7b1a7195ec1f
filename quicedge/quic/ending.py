"""How a connection ends, and how far what was written on a stream has come."""

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
    """Given up without a word: no viable path, no version in common, a failure of ours."""

    @property
    def has_code(self) -> bool:
        """Whether somebody said why: the others send nothing, so no error code is anybody's."""
        return self in (Ending.LOCAL_CLOSE, Ending.PEER_CLOSE)


class Delivery(Enum):
    """How far what we write on a stream has come."""

    OPEN = "open"
    """More may be written."""
    QUEUED = "queued"
    """The end is written; some of it has yet to be sent, or sent again."""
    IN_FLIGHT = "in flight"
    """All of it is sent, some not acknowledged."""
    DELIVERED = "delivered"
    """All of it is acknowledged, the end included."""
    RESET = "reset"
    """Broken off, by us or by the peer's STOP_SENDING."""
