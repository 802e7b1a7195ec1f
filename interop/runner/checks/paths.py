"""Checks of new paths: each begins with a PATH_CHALLENGE that is answered."""

from __future__ import annotations

from interop.runner import addresses
from interop.runner.evidence import CheckFailed, Evidence
from interop.runner.trace import Direction, Kind, Trace

CHALLENGE, RESPONSE = "quic.path_challenge.data", "quic.path_response.data"
SERVER = {addresses.SERVER_V4, addresses.SERVER_V6}


def new_paths_validated(evidence: Evidence) -> None:
    """The server's first packet on every new path holds a PATH_CHALLENGE; the client answers it.

    RFC 9000 section 9.3: an endpoint that sees a peer's address change "MUST perform path
    validation".
    """
    first = _first_from_server(evidence.right)
    if len(first) < 2:
        raise CheckFailed("the server saw one path only")
    challenges: set[str] = set()
    for datagram in evidence.right.frames(list(first)[1:]):
        data = [value for packet in datagram.packets for value in packet.values(CHALLENGE)]
        if not data:
            raise CheckFailed(
                f"no PATH_CHALLENGE in the server's first packet {first[datagram.frame]}"
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
    paths: set[tuple[tuple[str, int], tuple[str, int]]] = set()
    used: set[str | None] = set()
    for datagram in evidence.left.sent(Direction.FROM_CLIENT, Kind.SHORT):
        path = datagram.source, datagram.destination
        identifiers = {packet.hex("quic.dcid") for packet in datagram.of(Kind.SHORT)}
        if paths and path not in paths and (None in identifiers or identifiers & used):
            raise CheckFailed(
                "the client's first packet on a new path has an old connection ID"
                f" (frame {datagram.frame} of the left capture)"
            )
        paths.add(path)
        used |= identifiers
    if len(paths) < 2:
        raise CheckFailed("the client used one path only")


def _first_from_server(trace: Trace) -> dict[int, str]:
    """The number of the server's first frame on every path, and the path in words."""
    seen: set[tuple[str, int, str, int]] = set()
    first: dict[int, str] = {}
    for number, packet in trace.scan():
        source, destination = str(packet.source), str(packet.destination)
        if not packet.is_udp or source not in SERVER:
            continue
        path = (source, packet.source_port, destination, packet.destination_port)
        if path not in seen:
            seen.add(path)
            first[number] = f"from port {path[1]} to {destination} port {path[3]}"
    return first
