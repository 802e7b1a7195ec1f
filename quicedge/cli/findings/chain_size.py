"""Whether a certificate chain fits into the first flight that QUIC permits."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.limits import AMPLIFICATION_FACTOR, MIN_INITIAL_DATAGRAM
from quicedge.quic.certificate_compression import COMPRESSIONS
from quicedge.quic.tls import ServerCertificate

_FIRST_FLIGHT = AMPLIFICATION_FACTOR * MIN_INITIAL_DATAGRAM
"""Bytes to a client whose ClientHello fills one datagram, before its address is validated."""
_REST = 700
"""Bytes of the flight that are not the chain: other messages, an RSA signature, packet headers."""
_BROTLI = "brotli"


def of_chain(certificate: ServerCertificate, subject: str) -> Iterator[Finding]:
    """A finding for a chain that does not fit."""
    plain = len(certificate.message)
    if plain + _REST <= _FIRST_FLIGHT:
        return
    sizes = {one.name: len(certificate.message_for((one.number,))[1]) for one in COMPRESSIONS}
    shown = ", ".join(f"{size} with {name}" for name, size in sizes.items())
    message = f"a chain of {plain} bytes ({shown})"
    if min(sizes.values()) + _REST > _FIRST_FLIGHT:
        yield Finding(
            Level.WARNING, subject,
            f"{message} exceeds the first flight of QUIC: handshakes take a round trip more",
            "use an ECDSA key, fewer names, and no certificates that clients have themselves",
        )  # fmt: skip
    elif _BROTLI not in sizes:
        yield Finding(
            Level.WARNING, subject,
            f"{message} fits the first flight of QUIC for few clients: Chromium's want brotli",
            "pip install 'quicedge[compression]'",
        )  # fmt: skip
    else:
        yield Finding(
            Level.OK, subject,
            f"{message} fits the first flight of QUIC for clients that take it compressed",
            "an ECDSA key makes it shorter for all",
        )  # fmt: skip
