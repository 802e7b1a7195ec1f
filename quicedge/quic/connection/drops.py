"""Why received packets are discarded."""

from __future__ import annotations

from enum import Enum, auto


class DropReason(Enum):
    """Why a packet was discarded. Values are qlog's `packet_dropped` triggers."""

    GENERAL = "general"
    UNSUPPORTED_VERSION = "unsupported"
    INVALID = "invalid"
    UNKNOWN_CONNECTION_ID = "connection_unknown"
    KEY_UNAVAILABLE = "key_unavailable"
    DECRYPTION_FAILURE = "decryption_failure"
    DUPLICATE = "duplicate"


class Accounted(Enum):
    """A packet that is not to be counted as dropped."""

    DEFERRED = auto()
    """Buffered until its keys are available."""
    COUNTED = auto()
    """Processed, or dropped and already counted."""


Outcome = DropReason | Accounted | None
"""What became of a received packet; None: it was processed."""
