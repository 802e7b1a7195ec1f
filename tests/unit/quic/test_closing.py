"""The end of a connection: what is answered, and what is not (RFC 9000 section 10.2)."""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode

from quicedge.quic.connection import Connection
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from tests.support.quicpair import SECRET
from tests.support.world import NOW, Path, World, first_flight, is_connected


def connected() -> tuple[World, QuicConnection, Connection]:
    world = World()
    client = world.client()
    world.talk(client)
    assert is_connected(client)
    (connection,) = world.endpoint.connections
    return world, client, connection


def ping(client: QuicConnection, now: float = NOW + 1) -> list[bytes]:
    """One datagram, at a time when the client's pacing lets it go."""
    client.send_ping(1)
    return [data for data, _ in client.datagrams_to_send(now)]


def close(world: World, connection: Connection) -> list[bytes]:
    connection.close(error_code=0x107, reason_phrase="a test")
    world.endpoint.wake(connection)
    return world.receive()


def test_packets_after_our_close_are_answered_with_it_at_a_falling_rate() -> None:
    world, client, connection = connected()
    (farewell,) = close(world, connection)
    answered = []
    for number in range(1, 33):
        answers = world.receive(*ping(client, NOW + number))
        if answers:
            assert answers == [farewell]
            answered.append(number)
    assert answered == [1, 2, 4, 8, 16, 32]
    # A client that had lost the first one now knows why.
    client.receive_datagram(farewell, ("server", 443), NOW)
    assert client._close_event is not None
    assert client._close_event.error_code == 0x107


def test_the_closing_period_is_three_probe_timeouts_and_then_all_is_forgotten() -> None:
    world, client, connection = connected()
    period = 3 * connection.recovery.probe_timeout()
    close(world, connection)
    late = ping(client)
    assert late
    world.receive(*ping(client, NOW + 2), now=NOW + 0.9 * period)
    world.endpoint.handle_timers(NOW + 0.9 * period)
    world.endpoint.flush(NOW + 0.9 * period)
    assert world.endpoint.connections == {connection}, "packets do not prolong it"
    world.endpoint.handle_timers(NOW + 1.1 * period)
    world.endpoint.flush(NOW + 1.1 * period)
    assert not world.endpoint.connections
    assert not world.endpoint._by_cid
    (reset,) = world.receive(*late)
    token = ConnectionIdIssuer(secret=SECRET).reset_token(late[0][1:9])
    assert reset[-16:] == token


def test_a_client_that_moves_while_we_say_goodbye_is_told_where_it_is_now() -> None:
    world, client, connection = connected()
    (farewell,) = close(world, connection)
    moved = Path(("203.0.113.9", 4444))
    for data in ping(client):
        world.endpoint.receive(data, moved, NOW)
    world.endpoint.flush(NOW)
    assert world.network.sent == [(farewell, moved)]
    client.receive_datagram(farewell, ("server", 443), NOW)
    assert client._close_event is not None


def test_another_address_is_not_sent_more_than_three_times_what_came_from_it() -> None:
    world, _, connection = connected()
    connection.close(error_code=0x107, reason_phrase="a reason of many words " * 8)
    world.endpoint.wake(connection)
    world.receive()
    small = b"\x40" + connection.local_ids.latest_used + bytes(30)
    elsewhere = Path(("203.0.113.9", 4444))
    for _ in range(64):
        assert sum(map(len, world.receive(small, path=elsewhere))) <= 3 * len(small)


def test_an_address_not_validated_is_not_sent_more_than_three_times_what_came() -> None:
    world = World()
    client = world.client()
    received = first_flight(client)
    sent = world.receive(*received)
    (connection,) = world.endpoint.connections
    connection.close(error_code=QuicErrorCode.INTERNAL_ERROR, frame_type=0)
    world.endpoint.wake(connection)
    sent += world.receive()
    small = b"\x40" + connection.local_ids.latest_used + bytes(30)
    for _ in range(64):
        received.append(small)
        sent += world.receive(small)
        assert sum(map(len, sent)) <= 3 * sum(map(len, received))


def test_a_draining_connection_is_silent() -> None:
    world, client, connection = connected()
    late = ping(client)
    client.close(error_code=0x100)
    assert world.receive(*[data for data, _ in client.datagrams_to_send(NOW)]) == []
    for _ in range(8):
        assert world.receive(*late) == []
    assert world.endpoint.connections == {connection}
