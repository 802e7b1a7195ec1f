"""Messages between the supervisor and the process that speaks to an issuer: JSON, one per line."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from quicedge.acme.challenge import ChallengeKind, Proof
from quicedge.acme.failure import Failure
from quicedge.acme.lifetime import Window

LINE_MAX = 1 << 20
"""Bytes of a message: hundreds of certificate identifiers, or a chain."""


class Account(Struct, frozen=True, kw_only=True):
    """An account with an issuer; stored."""

    directory: str
    key_pem: str
    uri: str | None = None
    """None: not registered yet."""

    def __repr__(self) -> str:
        return f"<account {self.uri}>"  # the key must not reach a log


class ExternalBinding(Struct, frozen=True, kw_only=True):
    """An account of another kind that the issuer wants to know of (RFC 8555 section 7.3.4)."""

    key_id: str
    hmac_key: str
    """In base64url, as issuers hand it out."""

    def __repr__(self) -> str:
        return f"<external binding {self.key_id}>"


class PlaceOrder(Struct, frozen=True, kw_only=True, tag=True):
    """Order a certificate."""

    name: str
    csr_pem: str
    kinds: list[ChallengeKind]
    """Challenges that can be met, most preferred first."""
    profile: str | None = None
    replaces: str | None = None
    """The identifier of the certificate that is renewed (RFC 9773 section 5)."""


class AskRenewal(Struct, frozen=True, kw_only=True, tag=True):
    """Ask when to renew certificates, by their identifiers (RFC 9773 section 4.1)."""

    certificates: dict[str, str]
    """Identifiers by name."""


class User(Struct, frozen=True):
    """A user and its groups, by number."""

    uid: int
    gid: int
    groups: list[int]


class Job(Struct, frozen=True, kw_only=True):
    """The first line that the process reads."""

    account: Account
    email: str | None
    binding: ExternalBinding | None = None
    ca: str | None = None
    """PEM bundle that the issuer's own TLS certificate is verified against."""
    user_agent: str
    user: User | None = None
    """Who the process runs as while it speaks to the issuer; None: unchanged."""
    task: PlaceOrder | AskRenewal


class Registered(Struct, frozen=True, kw_only=True, tag=True):
    """There is an account."""

    account: Account


class Prove(Struct, frozen=True, kw_only=True, tag=True):
    """The proofs must be in place: answer with `Proved`."""

    proofs: list[Proof]


class Issued(Struct, frozen=True, kw_only=True, tag=True):
    """The end of an order."""

    chain_pem: str


class Suggested(Struct, frozen=True, kw_only=True, tag=True):
    """When to renew one certificate; None: the issuer does not say."""

    name: str
    window: Window | None
    retry_after: float | None = None


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """The end of a task that failed."""

    failure: Failure


Message: TypeAlias = Registered | Prove | Issued | Suggested | Failed


class Proved(Struct, frozen=True, kw_only=True):
    """The proofs are in place, or why not."""

    error: str | None = None


def line(message: Any) -> bytes:
    """A message as it is sent."""
    return msgspec.json.encode(message) + b"\n"
