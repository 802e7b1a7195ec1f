"""Authorities and revocation lists that clients' certificates are verified with."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from cryptography import x509

from quicedge.cli.findings.finding import Finding, Level
from quicedge.client_auth.material import (
    ClientAuthError,
    ClientAuthPem,
    crls_of,
    read_client_auth,
)
from quicedge.config.schema import Config
from quicedge.proxy.accounting import route_label

_SOON = datetime.timedelta(days=1)


def of_config(config: Config) -> Iterator[Finding]:
    """A finding for each entry of `tls.client_auth`."""
    try:
        entries = read_client_auth(config.tls)
    except ClientAuthError as error:
        yield Finding(Level.ERROR, "certificates of clients", str(error))
        return
    for pem in entries:
        yield _entry(pem)
    if not entries:
        yield from _never(config)


def _never(config: Config) -> Iterator[Finding]:
    """Routes that wait for certificates which no client is asked for."""
    for route in config.routes:
        tls = route.tls
        if tls is not None and (tls.client_certificate or tls.client_subjects or tls.client_names):
            yield Finding(
                Level.WARNING, f"route {route_label(route)}",
                "never matches: no client is asked for a certificate", "add [[tls.client_auth]]",
            )  # fmt: skip


def _entry(pem: ClientAuthPem) -> Finding:
    subject = f"certificates of clients of {', '.join(pem.hosts)}"
    now = datetime.datetime.now(datetime.UTC)
    authorities = x509.load_pem_x509_certificates(pem.ca)
    for authority in authorities:
        if authority.not_valid_after_utc <= now:
            return Finding(
                Level.ERROR, subject,
                f"{authority.subject.rfc4514_string()} expired on "
                f"{authority.not_valid_after_utc:%Y-%m-%d}: its clients are refused",
                "replace it in client_ca",
            )  # fmt: skip
    for revoked in crls_of(pem.crl):
        due = revoked.next_update_utc
        if due is not None and due <= now + _SOON:
            when = "since" if due <= now else "from"
            return Finding(
                Level.ERROR if due <= now else Level.WARNING, subject,
                f"the revocation list of {revoked.issuer.rfc4514_string()} is out of date {when} "
                f"{due:%Y-%m-%d %H:%M} UTC: all its clients are refused then",
                "fetch the next one before",
            )  # fmt: skip
    names = ", ".join(item.subject.rfc4514_string() for item in authorities)
    return Finding(Level.OK, subject, f"{pem.mode}; {names}")
