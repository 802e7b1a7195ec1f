"""Newcomers at the endpoint: decided before any state is spent, and answered by the book."""

from __future__ import annotations

from math import inf
from unittest.mock import patch

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.connection import Connection
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.events import QuicEvent, StreamDataReceived
from quicedge.quic.packet import VERSION_1, VERSION_2
from quicedge.quic.stateless_reset import stateless_reset
from quicedge.quic.tls import CertificateStore
from quicedge.quic.tokens import TokenKeys
from quicedge.shares.rates import RateLimit
from tests.support.certs import make_certificate
from tests.support.quicpair import SECRET
from tests.support.world import NOW, Handler, Path, World, first_flight, is_connected


@pytest.mark.parametrize("versions", [[VERSION_1], [VERSION_2], [VERSION_1, VERSION_2]])
def test_a_handshake_in_every_version(versions: list[int]) -> None:
    world = World()
    client = world.client(supported_versions=versions)
    world.talk(client)
    assert is_connected(client)
    assert len(world.endpoint.connections) == 1
    assert not world.endpoint.half_open


def test_an_unknown_version_is_answered_even_without_connection_ids() -> None:
    world = World()
    probe = bytes.fromhex("c0574149540000").ljust(1207, b"\0")
    (answer,) = world.receive(probe)
    assert answer[1:5] == b"\0\0\0\0"
    assert VERSION_1.to_bytes(4, "big") in answer
    assert not world.endpoint.connections


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (bytes.fromhex("c0574149540000").ljust(100, b"\0"), "dropped_short"),
        (bytes.fromhex("c0000000000000").ljust(1200, b"\0"), "dropped_version"),
        (b"\xc0\0\0\0\x01\x08" + b"c" * 8 + b"\0" * 100, "dropped_short"),
        (b"\xc0\0\0\0\x01\x07" + b"c" * 7 + b"\0" * 1200, "dropped_dcid_length"),
        (b"\xe0\0\0\0\x01\x08" + b"c" * 8 + b"\0" * 1200, "dropped_unknown_connection"),
        (b"\xc0\0\0", "dropped_header"),
        (b"", "dropped_empty"),
        (b"\xc0\0\0\0\x01\x08" + b"c" * 8 + b"\0\0\x44\x9e" + b"x" * 1200, "dropped_undecryptable"),
    ],
)
def test_what_is_dropped_without_an_answer_or_state(datagram: bytes, counter: str) -> None:
    world = World()
    assert world.receive(datagram) == []
    assert world.endpoint.counters[counter] == 1
    assert not world.endpoint.connections


def test_version_negotiation_is_limited_in_rate() -> None:
    world = World()
    probe = bytes.fromhex("c0574149540000").ljust(1200, b"\0")
    answers = sum(len(world.receive(probe)) for _ in range(1500))
    assert answers == 1000


def test_retry_is_sent_and_its_token_accepted_once_the_client_returns_it() -> None:
    world = World(retry="always")
    client = world.client()
    (retry,) = world.receive(*first_flight(client))
    assert pull_quic_header(Buffer(data=retry)).packet_type == QuicPacketType.RETRY
    assert not world.endpoint.connections
    client.receive_datagram(retry, ("server", 443), NOW)
    world.talk(client)
    assert is_connected(client)


def test_a_retry_token_of_another_address_is_refused() -> None:
    world = World(retry="always")
    client = world.client()
    (retry,) = world.receive(*first_flight(client))
    client.receive_datagram(retry, ("server", 443), NOW)
    answer = world.receive(*first_flight(client), path=Path(("203.0.113.5", 40000)))
    assert not world.endpoint.connections
    client.receive_datagram(answer[0], ("server", 443), NOW)
    assert client._close_event is not None
    assert client._close_event.error_code == 0xB  # INVALID_TOKEN


def test_retry_starts_above_the_threshold_and_nothing_is_accepted_above_the_limit() -> None:
    world = World(retry="auto", retry_threshold=3, max_half_open=5)
    for _ in range(3):
        world.receive(first_flight(world.client())[0])
    assert len(world.endpoint.half_open) == 3
    (answer,) = world.receive(first_flight(world.client())[0])
    assert pull_quic_header(Buffer(data=answer)).packet_type == QuicPacketType.RETRY


def test_half_open_connections_leave_at_their_deadline() -> None:
    world = World()
    world.receive(first_flight(world.client())[0])
    assert len(world.endpoint.half_open) == 1
    for later in range(1, 12):
        world.endpoint.handle_timers(NOW + later)
        world.endpoint.flush(NOW + later)
    assert not world.endpoint.connections
    assert not world.endpoint._by_cid
    assert any(isinstance(event, ConnectionTerminated) for event in world.handlers[0].events)


def test_no_more_than_three_times_what_came_in_before_validation() -> None:
    world = World()
    client = world.client()
    received = first_flight(client)
    sent = world.receive(*received)
    for later in (0.5, 1, 2, 4):
        world.endpoint.handle_timers(NOW + later)
        world.endpoint.flush(NOW + later)
        sent += world.network.take()
    assert sum(map(len, sent)) <= 3 * sum(map(len, received))


def test_an_unknown_connection_gets_a_stateless_reset_that_its_owner_would_believe() -> None:
    world = World()
    client = world.client()
    world.talk(client)
    assert is_connected(client)
    connection = next(iter(world.endpoint.connections))
    cid = connection.local_ids.initial
    restarted = World()
    (reset,) = restarted.receive(b"\x40" + cid + b"p" * 100)
    assert len(reset) < 1 + 8 + 100
    assert reset[-16:] == ConnectionIdIssuer(secret=SECRET).reset_token(cid)
    assert reset[0] & 0xC0 == 0x40


def test_what_is_no_quic_packet_is_not_answered() -> None:
    """STUN, DTLS, messages between hosts of a fleet that are replayed or forged."""
    world = World()
    assert [world.receive(bytes((first,)) + bytes(100)) for first in range(0x40)] == [[]] * 0x40
    assert world.endpoint.counters["dropped_header"] == 0x40


def test_resets_are_smaller_than_what_triggers_them_and_never_answer_each_other() -> None:
    size = 200
    while True:
        reset = stateless_reset(size, b"t" * 16)
        if reset is None:
            break
        assert len(reset) < size
        size = len(reset)
    assert size >= 21


def test_resets_are_limited_in_rate() -> None:
    world = World()
    answers = sum(len(world.receive(b"\x40" + bytes(60))) for _ in range(300))
    assert answers == 100


def test_every_connection_id_carries_the_slot() -> None:
    world = World()
    world.talk(world.client())
    connection = next(iter(world.endpoint.connections))
    assert len(connection.local_ids.active) > 1
    assert {cid[0] % 8 for cid in connection.local_ids.active} == {3}


def test_a_fault_of_ours_costs_one_connection_alone() -> None:
    world = World()
    healthy, unlucky = world.client(), world.client()
    world.talk(healthy)
    world.fail_next = True
    world.talk(unlucky, path=Path(("192.0.2.8", 1)))
    assert is_connected(healthy)
    assert len(world.endpoint.connections) == 1
    assert world.endpoint.counters["internal_errors"] == 1
    healthy.send_ping(7)
    world.talk(healthy)
    assert world.endpoint.counters["internal_errors"] == 1


def test_a_hello_over_several_initials_in_any_order() -> None:
    """Post-quantum hellos do not fit one datagram; aioquic's quantum test makes such a one."""
    world = World()
    client = world.client(quantum_readiness_test=True)
    flight = first_flight(client)
    assert len(flight) > 1
    answers = world.receive(*reversed(flight))
    assert len(world.endpoint.connections) == 1
    for data in answers:
        client.receive_datagram(data, ("server", 443), NOW)
    world.talk(client)
    assert is_connected(client)


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        ("www.example.com", "exact"),
        ("img.example.com", "wildcard"),
        ("a.b.example.com", "default"),
        ("other.test", "default"),
    ],
)
def test_the_certificate_follows_the_server_name(server_name: str, expected: str) -> None:
    certificates = {
        "default": make_certificate("default.test"),
        "exact": make_certificate("www.example.com", kind="rsa"),
        "wildcard": make_certificate("*.example.com"),
    }
    world = World(certificates=CertificateStore(certificates.values()))
    client = world.client()
    client._configuration.server_name = server_name
    client = QuicConnection(configuration=client._configuration)
    client.connect(("server", 443), NOW)
    world.talk(client)
    assert is_connected(client)
    connection = next(iter(world.endpoint.connections))
    assert connection.handshake.server_name == server_name
    assert connection.handshake.certificate is certificates[expected]


@given(st.binary(max_size=1500))
def test_no_datagram_raises(data: bytes) -> None:
    world = World()
    world.receive(data)
    world.receive(bytes((0xC0,)) + VERSION_1.to_bytes(4, "big") + data.ljust(1200, b"\0"))
    assert world.endpoint.counters["internal_errors"] == 0


def test_a_rate_limit_refills() -> None:
    limit = RateLimit(2)
    assert [limit.allow(10.0) for _ in range(3)] == [True, True, False]
    assert limit.allow(10.5)
    assert not limit.allow(10.5)


@pytest.mark.parametrize(
    ("later", "address", "cid", "good"),
    [
        (0, ("192.0.2.1", 5), b"retryscid", True),
        (29, ("192.0.2.1", 5), b"retryscid", True),
        (31, ("192.0.2.1", 5), b"retryscid", False),
        (0, ("192.0.2.1", 6), b"retryscid", False),
        (0, ("192.0.2.2", 5), b"retryscid", False),
        (0, ("192.0.2.1", 5), b"anotherid", False),
    ],
)
def test_a_token_is_good_for_one_client_for_a_short_time(
    later: float, address: tuple[str, int], cid: bytes, good: bool
) -> None:
    token = TokenKeys(SECRET).seal_retry(("192.0.2.1", 5), b"original", b"retryscid", NOW)
    opened = TokenKeys(SECRET).open_retry(token, address, cid, NOW + later)
    assert (opened is not None) == good
    if opened is not None:
        assert opened.original_destination_cid == b"original"


@given(st.binary(max_size=100))
def test_forged_tokens_open_nothing(token: bytes) -> None:
    assert TokenKeys(SECRET).open_retry(token, ("192.0.2.1", 5), b"cid", NOW) is None


def test_a_deadline_that_has_moved_costs_no_transmit() -> None:
    """An ACK that left with other data leaves its deadline behind."""
    world = World()
    client = world.client()
    world.talk(client)
    (connection,) = world.endpoint.connections
    world.endpoint.flush(NOW)
    client.send_ping(1)
    world.receive(*first_flight(client))
    armed = world.endpoint.next_timer()
    assert armed < inf
    connection.send_ping(1)
    world.endpoint.wake(connection)
    world.endpoint.flush(NOW + 0.001)
    assert world.network.take()  # the PING, and the ACK with it

    with patch.object(Connection, "poll_transmit") as transmit:
        world.endpoint.handle_timers(armed)
        world.endpoint.flush(armed)
        transmit.assert_not_called()
    later = world.endpoint.next_timer()
    assert armed < later < inf
    world.endpoint.handle_timers(later)
    world.endpoint.flush(later)
    assert world.network.take()  # a probe, as nobody has answered the PING


def test_what_is_written_while_events_are_delivered_is_sent_once() -> None:
    """Credit that is returned for each event must not make the connection transmit again."""

    class Consuming(Handler):
        def handle_event(self, event: QuicEvent) -> None:
            if isinstance(event, StreamDataReceived):
                connection.consume(event.stream_id, len(event.data))
                assert world.endpoint.wake(connection) is False  # `flush` is running

    world = World()
    client = world.client()
    world.talk(client)
    (connection,) = world.endpoint.connections
    connection.handler = Consuming()
    assert world.endpoint.wake(connection) is True
    world.endpoint.flush(NOW)
    client.send_stream_data(0, b"x" * 1000)
    datagrams = [data for data, _ in client.datagrams_to_send(NOW + 1)]
    with patch.object(
        Connection, "poll_transmit", autospec=True, side_effect=Connection.poll_transmit
    ) as transmit:
        world.receive(*datagrams, now=NOW + 1)
        assert transmit.call_count == 1
