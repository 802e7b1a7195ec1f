"""Checks of new paths: each begins with a PATH_CHALLENGE that is answered."""

from __future__ import annotations

from interop.runner import addresses
from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Trace

CHALLENGE, RESPONSE = "quic.path_challenge.data", "quic.path_response.data"
SERVER = {addresses.SERVER_V4, addresses.SERVER_V6}


def new_paths_validated(evidence: Evidence) -> None:
    """The server's first packet on every new path holds a PATH_CHALLENGE; the client answers it.

    RFC 9000 section 9.3: an endpoint that sees a peer's address change "MUST perform path
    validation".
    """
    first = _first_frames(evidence.right, from_server=True)
    if len(first) < 2:
        raise CheckFailed("the server saw one path only")
    challenges: set[str] = set()
    for datagram in evidence.right.frames(first[1:]):
        data = [value for packet in datagram.packets for value in packet.values(CHALLENGE)]
        if not data:
            where = f"{datagram.destination[0]} port {datagram.destination[1]}"
            raise CheckFailed(
                f"no PATH_CHALLENGE in the server's first packet to {where}"
                f" (frame {datagram.frame} of the right capture)"
            )
        challenges.update(data)
    answered = {
        value
        for datagram in evidence.left.datagrams(f"{Direction.FROM_CLIENT.value} && {RESPONSE}")
        for packet in datagram.packets
        for value in packet.values(RESPONSE)
    }
    unanswered = challenges - answered
    if unanswered:
        raise CheckFailed(f"{len(unanswered)} PATH_CHALLENGE of {len(challenges)} not answered")


def several_client_addresses(evidence: Evidence) -> None:
    """The server saw more than one address of the client."""
    seen = {
        str(packet.source)
        for _, packet in evidence.right.scan()
        if packet.is_udp and str(packet.destination) in SERVER
    }
    if len(seen) < 2:
        raise CheckFailed("the server saw one address of the client only")


def new_connection_ids(evidence: Evidence) -> None:
    """The client's first packet on every new path bears a connection ID not used before.

    RFC 9000 section 9.5: an endpoint "MUST NOT reuse a connection ID when sending to more than
    one destination address".
    """
    first = _first_frames(evidence.left, from_server=False)
    used: set[str | None] = set()
    for index, datagram in enumerate(evidence.left.frames(first)):
        identifier = datagram.packets[0].hex("quic.dcid") if datagram.packets else None
        if index and (identifier is None or identifier in used):
            raise CheckFailed("the client's first packet on a new path has an old connection ID")
        if index == 0:
            used |= _identifiers_on(evidence.left, datagram.destination)
        used.add(identifier)
    if len(first) < 2:
        raise CheckFailed("the client used one path only")


def _identifiers_on(trace: Trace, destination: tuple[str, int]) -> set[str | None]:
    """Every destination connection ID of the client's datagrams to one address of the server."""
    address, port = destination
    family = "ipv6" if ":" in address else "ip"
    condition = f"quic && {family}.dst == {address} && udp.dstport == {port}"
    return {
        packet.hex("quic.dcid")
        for datagram in trace.datagrams(condition)
        for packet in datagram.packets
    }


def _first_frames(trace: Trace, *, from_server: bool) -> list[int]:
    """The number of the first frame of every (source, destination) pair, one way."""
    seen: set[tuple[str, int, str, int]] = set()
    first: list[int] = []
    for number, packet in trace.scan():
        ends = str(packet.source), str(packet.destination)
        if not packet.is_udp or ends[0 if from_server else 1] not in SERVER:
            continue
        path = (ends[0], packet.source_port, ends[1], packet.destination_port)
        if path not in seen:
            seen.add(path)
            first.append(number)
    return first
