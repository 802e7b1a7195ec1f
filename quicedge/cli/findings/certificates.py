"""Certificate checks: validity, expiry and covered hosts."""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator
from itertools import pairwise

from cryptography import x509

from quicedge.acme.names import wanted
from quicedge.cli.findings.chain_size import of_chain
from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.certificate_files import (
    CertificateFiles,
    certificate_files,
    has_certificates,
)
from quicedge.config.limits import CERTIFICATE_EXPIRY_WARNING
from quicedge.config.routes import hosts_of
from quicedge.config.schema import Config
from quicedge.quic.privatefile import is_private
from quicedge.quic.tls import (
    CertificateError,
    ServerCertificate,
    parse_certificate,
    read_certificate,
)


def of_config(config: Config) -> Iterator[Finding]:
    """Check every certificate and key, and every routed host."""
    covered: list[ServerCertificate] = []
    found = certificate_files(config.tls)
    if not found and config.tls.acme is None and has_certificates(config.tls):
        yield Finding(
            Level.ERROR, "certificates", "none is in the files and directories configured",
            "put one there, with its key, or correct tls.certificates",
        )  # fmt: skip
    for certificate in found:
        yield from _certificate(certificate, covered)
    if has_certificates(config.tls):
        yield from _hosts(config, covered)


def _certificate(item: CertificateFiles, covered: list[ServerCertificate]) -> Iterator[Finding]:
    subject = f"certificate {item.cert}"
    try:
        pem = read_certificate(item.cert, item.key, private=False)
        covered.append(parse_certificate(pem))
        chain = x509.load_pem_x509_certificates(pem.cert)
    except CertificateError as error:
        yield Finding(Level.ERROR, subject, str(error).removeprefix(f"{item.cert}: "))
        return
    now = datetime.datetime.now(datetime.UTC)
    leaf = chain[0]
    left = leaf.not_valid_after_utc - now
    if left <= datetime.timedelta(0):
        yield Finding(
            Level.ERROR, subject, f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}", "renew it"
        )
    elif leaf.not_valid_before_utc > now:
        yield Finding(
            Level.ERROR, subject, f"not valid before {leaf.not_valid_before_utc:%Y-%m-%d}"
        )
    elif left < datetime.timedelta(seconds=CERTIFICATE_EXPIRY_WARNING):
        yield Finding(Level.WARNING, subject, f"expires in {left.days} days", "renew it")
    else:
        yield Finding(Level.OK, subject, f"valid until {leaf.not_valid_after_utc:%Y-%m-%d}")
    if not covered[-1].names:
        yield Finding(
            Level.ERROR, subject, "has no subjectAltName: clients reject it",
            "reissue it with one",
        )  # fmt: skip
    yield from of_chain(covered[-1], subject)
    for lower, upper in pairwise(chain):
        if lower.issuer != upper.subject:
            yield Finding(
                Level.ERROR,
                subject,
                "the chain is out of order",
                "put the leaf first, then each issuer",
            )
    status = os.stat(item.key)
    if not is_private(status):
        mode = stat.S_IMODE(status.st_mode)
        yield Finding(
            Level.ERROR, f"key {item.key}", f"mode {mode:o}: readable by others",
            f"chmod 600 {item.key}",
        )  # fmt: skip


def _hosts(config: Config, certificates: list[ServerCertificate]) -> Iterator[Finding]:
    by_acme = wanted(config)
    for host in dict.fromkeys(host for route in config.routes for host in hosts_of(route)):
        if host == "*":
            continue
        name = host.replace("*", "any", 1)
        if any(certificate.covers(name) for certificate in certificates):
            yield Finding(Level.OK, f"host {host}", "covered by a certificate")
        elif host.lower().rstrip(".") in by_acme:
            yield Finding(Level.OK, f"host {host}", "its certificate is ordered by ACME")
        else:
            yield Finding(
                Level.ERROR, f"host {host}", "not covered by any certificate: clients will refuse",
                "add one under [tls] certificates",
            )  # fmt: skip
