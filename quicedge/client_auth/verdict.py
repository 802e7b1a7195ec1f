"""What becomes of a client that is asked for a certificate."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """As counted and logged."""

    ACCEPTED = "accepted"
    """Its certificate is valid."""
    NONE = "none"
    """It has none, and needs none."""
    REQUIRED = "required"
    """It has none, and needs one."""
    UNKNOWN_CA = "unknown_ca"
    """No chain leads to a configured authority."""
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNSUITABLE = "unsuitable"
    """Not for clients by its extended key usage, or its key or a signature is too weak."""
    CRL_UNUSABLE = "crl_unusable"
    """No current revocation list is there for an authority of its chain."""
    INVALID = "invalid"
    """Its chain is broken in another way."""

    @property
    def alert(self) -> int:
        """The alert that refuses it (RFC 8446 section 6.2)."""
        return _ALERTS[self]


_ALERTS = {
    Verdict.REQUIRED: 116,
    Verdict.UNKNOWN_CA: 48,
    Verdict.EXPIRED: 45,
    Verdict.REVOKED: 44,
    Verdict.UNSUITABLE: 43,
    Verdict.CRL_UNUSABLE: 46,
    Verdict.INVALID: 42,
}

REFUSALS = frozenset(_ALERTS)
"""Verdicts that end the handshake."""

_BY_OPENSSL = {
    2: Verdict.UNKNOWN_CA, 18: Verdict.UNKNOWN_CA, 19: Verdict.UNKNOWN_CA,
    20: Verdict.UNKNOWN_CA, 21: Verdict.UNKNOWN_CA, 27: Verdict.UNKNOWN_CA,
    10: Verdict.EXPIRED,
    23: Verdict.REVOKED,
    26: Verdict.UNSUITABLE, 66: Verdict.UNSUITABLE, 67: Verdict.UNSUITABLE,
    68: Verdict.UNSUITABLE,
    3: Verdict.CRL_UNUSABLE, 5: Verdict.CRL_UNUSABLE, 8: Verdict.CRL_UNUSABLE,
    11: Verdict.CRL_UNUSABLE, 12: Verdict.CRL_UNUSABLE,
    33: Verdict.CRL_UNUSABLE, 44: Verdict.CRL_UNUSABLE,
}  # fmt: skip
"""By X509_V_ERR_* of OpenSSL (X509_STORE_CTX_get_error(3))."""


def verdict_of_openssl(code: int) -> Verdict:
    """The verdict behind an error of OpenSSL's verification."""
    return _BY_OPENSSL.get(code, Verdict.INVALID)


class RefusedError(Exception):
    """A client's certificate is not accepted; the message says why."""

    def __init__(self, verdict: Verdict, reason: str, subject: str | None = None) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.subject = subject
        """Of the certificate, as far as it could be read."""
