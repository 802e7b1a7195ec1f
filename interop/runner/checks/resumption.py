"""Checks of second connections: resumed without a certificate, requests in 0-RTT."""

from __future__ import annotations

from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Kind

CERTIFICATE = "11"


def resumed(evidence: Evidence) -> None:
    """The first connection showed a certificate, the second none, and there was no third."""
    packets = evidence.left.packets(Direction.FROM_SERVER, Kind.HANDSHAKE)
    if not packets:
        raise CheckFailed("no Handshake packet of the server")
    first, second = packets[0].hex("quic.scid"), packets[-1].hex("quic.scid")
    if first == second:
        raise CheckFailed("one connection in place of two")
    if {packet.hex("quic.scid") for packet in packets} != {first, second}:
        raise CheckFailed("more than two connections")
    certified = {
        packet.hex("quic.scid")
        for packet in packets
        if CERTIFICATE in packet.values("tls.handshake.type")
    }
    if first not in certified:
        raise CheckFailed("no certificate on the first connection")
    if second in certified:
        raise CheckFailed("the second connection was not resumed: it shows a certificate")


def early_data(evidence: Evidence) -> None:
    """The requests went as 0-RTT: half their size at most went as 1-RTT, both connections taken."""
    requested = sum(len(path.name) for path in evidence.www.iterdir())
    early = _payload(evidence, Kind.EARLY)
    if early == 0:
        raise CheckFailed("no 0-RTT data")
    late = _payload(evidence, Kind.SHORT)
    if late > requested // 2:
        raise CheckFailed(f"{late} bytes of 1-RTT from the client, {requested // 2} allowed")


def _payload(evidence: Evidence, kind: Kind) -> int:
    packets = evidence.left.packets(Direction.FROM_CLIENT, kind)
    return sum(packet.payload_size for packet in packets)
