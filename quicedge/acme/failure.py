"""Why an order failed, as far as it matters to what is done next."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Cause(StrEnum):
    """Who has to do something about a failure."""

    UNAVAILABLE = "unavailable"
    """The issuer did not answer, or with 5xx: it is left alone for a while."""
    RATE_LIMITED = "rate_limited"
    """The issuer wants no more orders for this name for a while."""
    REFUSED = "refused"
    """The issuer refused the account, its binding or the terms: an operator has to act."""
    REJECTED = "rejected"
    """The name could not be validated, or will not be issued."""
    INTERNAL = "internal"
    """Our side: a library or command is missing, or ended unexpectedly."""

    @property
    def is_issuers(self) -> bool:
        """Whether it would befall all names at this issuer."""
        return self in (Cause.UNAVAILABLE, Cause.REFUSED)


class Failure(Struct, frozen=True, kw_only=True):
    """A failed order."""

    cause: Cause
    message: str
    """For logs and status, in one line."""
    retry_after: float | None = None
    """Seconds that the issuer asked us to wait."""
