"""Checks of how a connection came to be: ClientHello, cipher suite, Retry, versions."""

from __future__ import annotations

from interop.runner.checks.common import VERSION_1
from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Kind

CLIENT_HELLO = "1"
CHACHA20_POLY1305_SHA256 = 0x1303
VERSION_2 = 0x6B3343CF


def repeated_client_hello(evidence: Evidence) -> None:
    """The client probed before the first answer could come, so its initial timeout was shorter."""
    count = 0
    for packet in evidence.left.packets(Direction.FROM_CLIENT, Kind.INITIAL):
        repeated = packet.values("quic.retransmission") or packet.values("quic.overlap")
        if CLIENT_HELLO in packet.values("tls.handshake.type") or repeated:
            count += 1
    if count < 2:
        raise CheckFailed(f"{count} ClientHello seen, 2 wanted over a round trip of 1.5 s")


def only_chacha20(evidence: Evidence) -> None:
    """The client offered no cipher suite but TLS_CHACHA20_POLY1305_SHA256."""
    initials = evidence.left.packets(Direction.FROM_CLIENT, Kind.INITIAL)
    offered = {
        suite for packet in initials for suite in packet.integers("tls.handshake.ciphersuite")
    }
    if offered != {CHACHA20_POLY1305_SHA256}:
        listed = ", ".join(f"{suite:#06x}" for suite in sorted(offered)) or "none"
        raise CheckFailed(f"cipher suites offered: {listed}")


def retry_obeyed(evidence: Evidence) -> None:
    """A Retry came, its token came back, and the client did not start its packet numbers again.

    RFC 9000 section 17.2.5.3: "A client MUST NOT reset the packet number for any packet number
    space after processing a Retry packet."
    """
    retries = evidence.left.packets(Direction.FROM_SERVER, Kind.RETRY)
    tokens = {packet.hex("quic.retry_token") for packet in retries} - {None, ""}
    if not tokens:
        raise CheckFailed("the server sent no Retry with a token")
    highest = -1
    for packet in evidence.left.packets(Direction.FROM_CLIENT, Kind.INITIAL):
        number = packet.number if packet.number is not None else -1
        if not any(packet.integers("quic.token_length")):
            highest = max(highest, number)
            continue
        if packet.hex("quic.token") not in tokens:
            raise CheckFailed("the client's Initial bears a token that was in no Retry")
        if number <= highest:
            raise CheckFailed(f"the client reset its packet number to {number} after Retry")
        return
    raise CheckFailed("no Initial of the client bears the token")


def version_2_negotiated(evidence: Evidence) -> None:
    """First flight in version 1, the server's answer and all Handshake packets in version 2."""
    left, right = evidence.left, evidence.right
    offered = {packet.version for packet in left.packets(Direction.FROM_CLIENT, Kind.INITIAL)}
    if VERSION_1 not in offered:
        raise CheckFailed("no Initial of the client is of version 1")
    chosen = {packet.version for packet in right.packets(Direction.FROM_SERVER, Kind.INITIAL)}
    if VERSION_2 not in chosen:
        raise CheckFailed("no Initial of the server is of version 2")
    for name, packets in (
        ("client", left.packets(Direction.FROM_CLIENT, Kind.HANDSHAKE)),
        ("server", right.packets(Direction.FROM_SERVER, Kind.HANDSHAKE)),
    ):
        if {packet.version for packet in packets} != {VERSION_2}:
            raise CheckFailed(f"not all Handshake packets of the {name} are of version 2")


def version_negotiation(evidence: Evidence) -> None:
    """The server answered an unknown version with Version Negotiation to the right connection."""
    initials = evidence.left.sent(Direction.FROM_CLIENT)
    chosen = {packet.hex("quic.dcid") for item in initials for packet in item.packets}
    answers = evidence.left.packets(Direction.FROM_SERVER, Kind.VERSION_NEGOTIATION)
    if not answers:
        raise CheckFailed("the server sent no Version Negotiation")
    if not any(answer.hex("quic.scid") in chosen for answer in answers):
        raise CheckFailed("no Version Negotiation echoes the client's destination connection ID")
