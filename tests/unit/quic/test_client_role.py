"""Our client: Retry, version negotiation, and what it does not take from whom."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from aioquic.quic.packet import (
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
)

from quicedge.quic.connection import Connection
from quicedge.quic.connection.drops import DropReason
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.ending import Ending
from quicedge.quic.frames import Epoch, FrameType, NewToken
from quicedge.quic.packet import LongPacket, parse_long_packet
from quicedge.quic.transport_parameters import PreferredAddress
from tests.support.quicpair import SERVER_ADDRESS, client_configuration, make_pair
from tests.support.simnet import Pair, datagrams, transmit

V1, V2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
NOW = 1000.0
RETRY_CID = b"retrycid"


def start(**options: Any) -> tuple[Connection, LongPacket]:
    """A client that has sent its first flight, and that."""
    client = Connection(configuration=client_configuration(**options), now=NOW)
    client.connect(SERVER_ADDRESS, NOW)
    return client, first_initial(client, NOW)


def first_initial(client: Connection, now: float) -> LongPacket:
    flight = datagrams(client, now)
    assert flight
    assert all(len(data) >= 1200 for data in flight)
    packet = parse_long_packet(flight[0], 0)
    assert packet is not None
    return packet


def retry(initial: LongPacket, *, source: bytes = RETRY_CID, token: bytes = b"token") -> bytes:
    return encode_quic_retry(
        version=initial.version,
        source_cid=source,
        destination_cid=initial.source_cid,
        original_destination_cid=initial.destination_cid,
        retry_token=token,
    )


def versions(initial: LongPacket, offered: list[int]) -> bytes:
    return encode_quic_version_negotiation(
        source_cid=initial.destination_cid,
        destination_cid=initial.source_cid,
        supported_versions=offered,
    )


def test_retry_sends_the_first_flight_again_with_its_token_to_its_id() -> None:
    client, initial = start()
    client.receive_datagram(retry(initial), SERVER_ADDRESS, NOW)
    again = first_initial(client, NOW)
    assert again.token == b"token"
    assert again.destination_cid == RETRY_CID
    assert again.source_cid == initial.source_cid


def test_a_second_retry_is_ignored() -> None:
    client, initial = start()
    client.receive_datagram(retry(initial), SERVER_ADDRESS, NOW)
    first_initial(client, NOW)
    client.receive_datagram(retry(initial, source=b"another!"), SERVER_ADDRESS, NOW)
    assert datagrams(client, NOW) == []
    assert client.remote_ids.current.cid == RETRY_CID


@pytest.mark.parametrize("fault", ["forged", "no token", "same id"])
def test_a_retry_that_proves_nothing_is_ignored(fault: str) -> None:
    client, initial = start()
    packet = {
        "forged": retry(initial)[:-1] + b"?",
        "no token": retry(initial, token=b""),
        "same id": retry(initial, source=initial.destination_cid),
    }[fault]
    client.receive_datagram(packet, SERVER_ADDRESS, NOW)
    assert datagrams(client, NOW) == []
    assert client.is_alive


def test_a_retry_after_the_servers_first_packet_is_ignored() -> None:
    pair = make_pair(own_client=True)
    client = pair.client.connection
    flight = transmit(client, pair.now)
    initial = parse_long_packet(flight[0][0], 0)
    assert initial is not None
    for data, _, _ in flight:
        pair.server.connection.receive_datagram(data, pair.client.address, pair.now)
    for data in datagrams(pair.server.connection, pair.now):
        client.receive_datagram(data, SERVER_ADDRESS, pair.now)
    peer_cid = client.remote_ids.current.cid
    client.receive_datagram(retry(initial), SERVER_ADDRESS, pair.now)
    assert client.remote_ids.current.cid == peer_cid
    pair.run(lambda: client.handshake_confirmed)


def test_version_negotiation_begins_again_with_a_common_version() -> None:
    client, initial = start(supported_versions=[V1, V2])
    assert initial.version == V1
    client.receive_datagram(versions(initial, [0x1A2A3A4A, V2]), SERVER_ADDRESS, NOW)
    assert first_initial(client, NOW).version == V2


def test_version_negotiation_that_offers_the_version_in_use_is_ignored() -> None:
    client, initial = start(supported_versions=[V1, V2])
    client.receive_datagram(versions(initial, [V1, V2]), SERVER_ADDRESS, NOW)
    assert datagrams(client, NOW) == []
    assert client.is_alive


def test_version_negotiation_without_a_common_version_ends_the_connection() -> None:
    client, initial = start()
    client.receive_datagram(versions(initial, [0x1A2A3A4A]), SERVER_ADDRESS, NOW)
    assert client.is_terminated
    assert client.ending is Ending.ABORTED
    assert client.close_event is not None
    assert client.close_event.reason_phrase == "Could not find a common protocol version"
    assert datagrams(client, NOW) == []


def test_only_the_first_version_negotiation_counts() -> None:
    client, initial = start(supported_versions=[V1, V2])
    client.receive_datagram(versions(initial, [V2]), SERVER_ADDRESS, NOW)
    again = first_initial(client, NOW)
    client.receive_datagram(versions(again, [0x1A2A3A4A]), SERVER_ADDRESS, NOW)
    assert client.is_alive
    assert datagrams(client, NOW) == []


def test_a_forged_version_negotiation_does_not_downgrade() -> None:
    pair = make_pair(own_client=True, client_options={"supported_versions": [V1, V2]})
    client = pair.client.connection
    initial = first_initial(client, pair.now)
    client.receive_datagram(versions(initial, [V2]), SERVER_ADDRESS, pair.now)
    pair.run(lambda: client.handshake_confirmed)
    assert client.handshake.version == V1


def test_a_downgrade_that_stands_is_found_out_by_the_handshake() -> None:
    # RFC 9368 section 4: the server's list shows that it would have taken the first version.
    pair = make_pair(own_client=True, client_options={"supported_versions": [V1, V2]})
    client, server = pair.client.connection, pair.server.connection
    initial = first_initial(client, pair.now)
    client.receive_datagram(versions(initial, [V2]), SERVER_ADDRESS, pair.now)
    with patch.object(Handshake, "_choose_version", lambda *_: None):
        pair.run(lambda: server.close_event is not None)
    assert client.close_event.error_code == 0x11  # VERSION_NEGOTIATION_ERROR
    assert not client.handshake_complete


def connected(**options: Any) -> Pair:
    pair = make_pair(own_client=True, **options)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    return pair


def test_packets_from_an_unknown_server_address_are_dropped() -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    server.send_ping(1)
    before = client.counters.packets_received
    for data in datagrams(server, pair.now):
        client.receive_datagram(data, ("203.0.113.9", 443), pair.now)
    assert client.counters.packets_received == before
    assert client.counters.packets_dropped[DropReason.GENERAL] == 1
    assert len(client.paths.known) == 1


def test_a_new_source_connection_id_in_the_handshake_is_dropped() -> None:
    pair = make_pair(own_client=True)
    client, server = pair.client.connection, pair.server.connection
    for data in datagrams(client, pair.now):
        server.receive_datagram(data, pair.client.address, pair.now)
    first, *_ = datagrams(server, pair.now)
    client.receive_datagram(first, SERVER_ADDRESS, pair.now)
    before = client.counters.packets_received
    packet = parse_long_packet(first, 0)
    assert packet is not None
    stranger = first.replace(packet.source_cid, bytes(len(packet.source_cid)), 1)
    client.receive_datagram(stranger, SERVER_ADDRESS, pair.now)
    assert client.counters.packets_received == before
    assert client.remote_ids.current.cid == packet.source_cid


def test_the_token_for_the_next_visit_reaches_its_handler() -> None:
    tokens: list[bytes] = []
    pair = make_pair(
        own_client=True,
        token_handler=tokens.append,
        make_token=lambda address, version, now: b"next visit",
    )
    pair.run(lambda: bool(tokens))
    assert tokens == [b"next visit"]


def send_frame(pair: Pair, frame: bytes) -> Connection:
    """Have the client receive a frame that its server would not send; returns the client."""
    client, server = pair.client.connection, pair.server.connection
    keys = server.handshake.phases.send
    assert keys is not None
    space = server.spaces[Epoch.ONE_RTT]
    number = space.next_number
    space.next_number += 1
    header = b"\x41" + server.remote_ids.current.cid + (number & 0xFFFF).to_bytes(2, "big")
    packet = keys.cipher.seal_one(header, frame.ljust(4, b"\0"), number)
    client.receive_datagram(packet, SERVER_ADDRESS, pair.now)
    assert isinstance(client, Connection)
    return client


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (NewToken(b"").encode(), 0x7),
        (bytes((FrameType.STOP_SENDING, 3, 0)), 0x5),  # a stream on which only the server sends
        (bytes((FrameType.STREAM, 0)), 0x5),  # a stream that the client has not opened
        (bytes((FrameType.RETIRE_CONNECTION_ID, 40)), 0xA),
        (bytes((FrameType.DATAGRAM,)), 0xA),
    ],
    ids=["empty token", "STOP_SENDING", "unopened stream", "unknown ID", "DATAGRAM"],
)
def test_frames_that_a_server_must_not_send_close_the_connection(frame: bytes, error: int) -> None:
    client = send_frame(connected(), frame)
    assert client.close_event is not None
    assert client.close_event.error_code == error


def test_another_handshake_done_changes_nothing() -> None:
    client = send_frame(connected(), bytes((FrameType.HANDSHAKE_DONE,)))
    assert client.is_alive
    assert client.handshake_confirmed


def test_a_stateless_reset_ends_the_connection_in_silence() -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.remote_ids.current.reset_token is not None)
    token = server.local_ids.reset_token(client.remote_ids.current.cid)
    client.receive_datagram(b"\x40" + bytes(30) + token, SERVER_ADDRESS, pair.now)
    assert client.ending is Ending.STATELESS_RESET
    assert datagrams(client, pair.now) == []


def test_the_client_moves_to_the_preferred_address_once_that_has_answered() -> None:
    preferred = PreferredAddress(("198.51.100.2", 8443), None)
    pair = make_pair(own_client=True, preferred_address=preferred)
    client, server = pair.client.connection, pair.server.connection
    first_id = client.remote_ids.current.cid
    reached: list[tuple[str, int]] = []

    def exchange() -> None:
        for data, address, _ in transmit(client, pair.now):
            reached.append(address)
            server.receive_datagram(data, pair.client.address, pair.now)
        answered = reached[-1] if reached else SERVER_ADDRESS
        for data in datagrams(server, pair.now):
            client.receive_datagram(data, answered, pair.now)

    for _ in range(12):
        pair.now += 0.03
        for connection in (client, server):
            connection.handle_timeout(pair.now)
        exchange()
    assert ("198.51.100.2", 8443) in reached
    assert client.paths.address == ("198.51.100.2", 8443)
    assert client.paths.active.is_validated
    assert client.remote_ids.current.cid not in (first_id, b"")
    assert client.counters.migrations == 1


def test_a_preferred_address_that_does_not_answer_is_left_alone() -> None:
    preferred = PreferredAddress(("198.51.100.2", 8443), None)
    pair = make_pair(own_client=True, preferred_address=preferred)
    client, server = pair.client.connection, pair.server.connection
    for _ in range(12):
        pair.now += 0.03
        for connection in (client, server):
            connection.handle_timeout(pair.now)
        for data, address, _ in transmit(client, pair.now):
            if address == SERVER_ADDRESS:
                server.receive_datagram(data, pair.client.address, pair.now)
        for data in datagrams(server, pair.now):
            client.receive_datagram(data, SERVER_ADDRESS, pair.now)
    assert client.handshake_confirmed
    assert client.paths.address == SERVER_ADDRESS
    assert client.counters.migrations == 0
