"""What operators see of ACME: in `/api/v1/status`, metrics and `quicedge certs list`."""

from __future__ import annotations

from msgspec import Struct


class HostStatus(Struct, frozen=True, kw_only=True):
    """A name and its certificate. Times in seconds since the epoch."""

    host: str
    issuer: str | None
    """Directory URL that its certificate came from."""
    not_after: float | None
    """None: there is no certificate yet, and clients that ask for the name are refused."""
    renew_at: float | None
    on_demand: bool
    """It is not configured; a client asked for it."""
    ordering: bool
    """An order is in progress on this host."""
    next_attempt: float | None
    """After a failure: when it is tried again."""
    failing_since: float | None
    failures: int
    """Rounds in which no issuer delivered, since the last success."""
    error: str | None
    """What went wrong last."""


class IssuerStatus(Struct, frozen=True, kw_only=True):
    """An issuer. Times in seconds since the epoch."""

    directory: str
    down_until: float | None
    """It did not answer, or refused the account: it gets no requests until then."""
    error: str | None


class AcmeStatus(Struct, frozen=True, kw_only=True):
    """Certificates by ACME."""

    hosts: list[HostStatus]
    issuers: list[IssuerStatus]
    storage: str
    """Where accounts and certificates are kept."""
    storage_error: str | None
    """Why the storage cannot be used now."""
    orders: dict[str, int]
    """Orders since the start, by result."""
    on_demand: dict[str, int]
    """Names asked for by clients since the start, by what became of them: `allowed`, `refused`,
    `too_many`, `unanswered`."""
