"""Which key exchange groups clients get over QUIC and over TCP."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence

from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.groups import HYBRIDS, USUAL_GROUPS
from quicedge.config.listeners import listeners
from quicedge.config.schema import Config
from quicedge.quic.key_exchange import MLKEM_MISSING, usable_by_name
from quicedge.tcp.openssl import UnsupportedError, known_groups, set_groups


def of_config(config: Config) -> Iterator[Finding]:
    """A finding for each transport that is listened on."""
    listening = list(listeners(config))
    if any(item.quic for item in listening):
        yield _quic(config.tls.groups)
    if any(item.tcp_protocols for item in listening):
        yield _tcp(config.tls.groups)


def _quic(configured: Sequence[str]) -> Finding:
    subject = "key exchange on QUIC"
    groups = usable_by_name(configured)
    if not groups:
        return Finding(
            Level.ERROR, subject, f"no configured group can be used: {MLKEM_MISSING}",
            "add x25519 to tls.groups",
        )  # fmt: skip
    names = ", ".join(group.name for group in groups)
    if len(groups) < len(configured):
        return Finding(
            Level.WARNING, subject, f"{names}; no hybrids with ML-KEM: {MLKEM_MISSING}",
            "install cryptography's wheel, which brings its own OpenSSL",
        )  # fmt: skip
    return Finding(Level.OK, subject, names)


def _tcp(configured: Sequence[str]) -> Finding:
    subject = "key exchange on TCP"
    known = known_groups(configured)
    try:
        set_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), configured)
    except UnsupportedError as error:
        if configured != list(USUAL_GROUPS):
            return Finding(
                Level.ERROR, subject, f"tls.groups cannot be set: {error}",
                "remove tls.groups, or offer h3 alone",
            )  # fmt: skip
        return Finding(Level.OK, subject, f"those of {ssl.OPENSSL_VERSION}: {error}")
    names = ", ".join(known)
    if HYBRIDS & {*configured} - {*known}:
        return Finding(
            Level.OK, subject, f"{names}; no hybrids with ML-KEM in {ssl.OPENSSL_VERSION}",
            "run on a Python that is linked with OpenSSL 3.5 or newer",
        )  # fmt: skip
    return Finding(Level.OK, subject, f"{names}, by {ssl.OPENSSL_VERSION}")
