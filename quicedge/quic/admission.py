"""Who may start a handshake: decided before any state or cryptography is spent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal


class Decision(Enum):
    """What to do with the first packet of a would-be connection."""

    ACCEPT = auto()
    RETRY = auto()
    DROP = auto()


@dataclass(slots=True)
class Admission:
    """The rule for new connections.

    `half_open` counts handshakes that are not complete. A client that returned a valid token has
    proved its address and is not asked again.
    """

    retry: Literal["off", "always", "auto"]
    retry_threshold: int
    max_half_open: int

    def decide(self, *, half_open: int, address_validated: bool) -> Decision:
        if half_open >= self.max_half_open:
            return Decision.DROP
        if address_validated or self.retry == "off":
            return Decision.ACCEPT
        if self.retry == "always" or half_open >= self.retry_threshold:
            return Decision.RETRY
        return Decision.ACCEPT


class RateLimit:
    """A token bucket: at most `rate` actions a second, `rate` of them at once."""

    __slots__ = ("_level", "_rate", "_updated")

    def __init__(self, rate: float) -> None:
        self._rate = self._level = rate
        self._updated = 0.0

    def allow(self, now: float) -> bool:
        self._level = min(self._rate, self._level + (now - self._updated) * self._rate)
        self._updated = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
