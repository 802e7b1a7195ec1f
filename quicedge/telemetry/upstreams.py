"""What a worker knows of an upstream as a whole."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class Circuit(StrEnum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """They are refused."""
    HALF_OPEN = "half_open"
    """A few pass, to find out."""


class HedgeResult(StrEnum):
    """What became of requests that took longer than hedging waits."""

    WON = "won"
    """The second attempt answered first."""
    LOST = "lost"
    """The first attempt answered first, or the client left."""
    REFUSED = "refused"
    """No second attempt: too many in relation to requests, or no other server is fit for it."""


class UpstreamState(Struct):
    """Of one upstream in one worker."""

    circuit: Circuit | None = None
    """None: it has no circuit breaker."""
    circuit_opened: int = 0
    """How often it has opened."""
    circuit_refused: int = 0
    """Requests refused while it was open."""
    hedges: dict[str, int] = field(default_factory=dict)
    """By `HedgeResult`; empty without hedging."""
