"""Checks of a connection at work: stream credit, key phases, ECN, amplification, address family."""

from __future__ import annotations

from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Kind

MAX_STREAMS = 1000
NOT_ECT, CE = 0, 3
CHAIN_BYTES = 7500
# The interop runner tolerates somewhat more than the factor of three that RFC 9000 allows.
AMPLIFICATION, UDP_HEADER = 4, 8
_TRUE = {"1", "True"}


def stream_limit(evidence: Evidence) -> None:
    """The server's transport parameters allow at most 1000 streams at first."""
    limits = [
        limit
        for packet in evidence.left.packets(Direction.FROM_SERVER, Kind.HANDSHAKE)
        for limit in packet.integers("tls.quic.parameter.initial_max_streams_bidi")
    ]
    if not limits:
        raise CheckFailed("initial_max_streams_bidi is not to be seen in the server's Handshake")
    if max(limits) > MAX_STREAMS:
        raise CheckFailed(f"initial_max_streams_bidi is {max(limits)}, {MAX_STREAMS} at most")


def key_updated(evidence: Evidence) -> None:
    """Both sides sent 1-RTT packets of key phase 1."""
    for name, trace, direction in (
        ("client", evidence.left, Direction.FROM_CLIENT),
        ("server", evidence.right, Direction.FROM_SERVER),
    ):
        phase_1 = trace.datagrams(f"{direction.value} && quic.short && quic.key_phase == 1")
        if not any(
            _TRUE.intersection(packet.values("quic.key_phase"))
            for datagram in phase_1
            for packet in datagram.packets
        ):
            raise CheckFailed(f"no packet of key phase 1 from the {name}")


def ecn_used(evidence: Evidence) -> None:
    """Both sides mark their packets and report the marks that they see."""
    for name, trace, direction in (
        ("client", evidence.left, Direction.FROM_CLIENT),
        ("server", evidence.right, Direction.FROM_SERVER),
    ):
        datagrams = trace.sent(direction)
        marks = {datagram.ecn for datagram in datagrams} - {None, NOT_ECT}
        if CE in marks:
            raise CheckFailed(f"the {name} sent packets marked CE")
        if not marks:
            raise CheckFailed(f"the {name} marked no packet ECT")
        if not any(
            packet.values("quic.ack.ect0_count")
            for datagram in datagrams
            for packet in datagram.packets
        ):
            raise CheckFailed(f"no ACK of the {name} reports ECN counts")


def no_amplification(evidence: Evidence) -> None:
    """The server sent less than four times what it got until the client's address was proved.

    RFC 9000 section 8.1: before validation a server "MUST NOT send more than three times as many
    bytes as the number of bytes they have received".
    """
    ends = [
        offset + length
        for packet in evidence.right.packets(Direction.FROM_SERVER, Kind.HANDSHAKE)
        for offset, length in zip(
            packet.integers("quic.crypto.offset"),
            packet.integers("quic.crypto.length"),
            strict=True,
        )
    ]
    if max(ends, default=0) < CHAIN_BYTES:
        raise CheckFailed(
            f"the server's handshake has {max(ends, default=0)} bytes, {CHAIN_BYTES} wanted:"
            " it did not send the whole chain"
        )
    from_server = {item.frame for item in evidence.right.sent(Direction.FROM_SERVER)}
    allowed = 0
    for datagram in evidence.right.datagrams("quic && !icmp && !icmpv6"):
        kinds = [packet.kind for packet in datagram.packets]
        if Kind.VERSION_NEGOTIATION in kinds or kinds[:1] == [Kind.UNKNOWN]:
            raise CheckFailed(f"unexpected {kinds[0].value} packet in frame {datagram.frame}")
        size = datagram.size - UDP_HEADER
        if datagram.frame in from_server:
            if size >= allowed:
                raise CheckFailed(
                    f"frame {datagram.frame}: the server sends {size} bytes where {allowed} are"
                    f" left of {AMPLIFICATION} times what it received"
                )
            allowed -= size
        elif Kind.HANDSHAKE in kinds:
            return
        elif Kind.INITIAL in kinds:
            allowed += AMPLIFICATION * size
    raise CheckFailed("no Handshake packet of the client")


def only_ipv6(evidence: Evidence) -> None:
    """The server sent nothing over IPv4."""
    if any(":" not in item.source[0] for item in evidence.right.sent(Direction.FROM_SERVER)):
        raise CheckFailed("the server sent QUIC over IPv4")
