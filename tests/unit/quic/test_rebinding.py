"""A client whose address changes during the handshake: what proves which address."""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection

from quicedge.quic.connection import Connection
from tests.support.world import NOW, Path, World

SERVER = ("server", 443)
OLD = Path(("192.0.2.7", 40000))
NEW = Path(("192.0.2.7", 61000))


def flight(client: QuicConnection, now: float = NOW) -> list[bytes]:
    return [data for data, _ in client.datagrams_to_send(now)]


def exchange(
    world: World, client: QuicConnection, path: Path, now: float = NOW
) -> list[tuple[bytes, Path]]:
    """The client sends from `path`; what the server sends, not delivered."""
    for data in flight(client, now):
        world.endpoint.receive(data, path, now)
    world.endpoint.flush(now)
    sent, world.network.sent = world.network.sent, []
    return sent


def take(client: QuicConnection, sent: list[tuple[bytes, Path]], now: float = NOW) -> None:
    for data, _ in sent:
        client.receive_datagram(data, SERVER, now)


def rebound() -> tuple[World, QuicConnection, Connection, list[tuple[bytes, Path]]]:
    """The server's flight went to the old address, the client's Finished comes from the new one."""
    world = World()
    client = world.client()
    take(client, exchange(world, client, OLD))
    sent = exchange(world, client, NEW)
    (connection,) = world.endpoint.connections
    assert connection.handshake_complete
    return world, client, connection, sent


def test_the_new_address_is_challenged_with_the_end_of_the_handshake() -> None:
    world, client, connection, sent = rebound()
    assert {path for _, path in sent} == {NEW}
    assert connection.paths.address == NEW
    assert not connection.paths.active.is_validated
    # What the client could only know at its old address proves that one.
    assert connection.validated_path == OLD
    assert connection.paths.known[0].challenges
    assert not connection.paths.known[1].challenges
    take(client, sent)
    assert client._handshake_confirmed
    exchange(world, client, NEW, NOW + 0.01)
    assert connection.paths.active.is_validated
    assert connection.validated_path == NEW


def test_a_new_address_that_never_answers_is_given_up_for_the_proven_one() -> None:
    world, _, connection, sent = rebound()
    later = NOW
    received = connection.paths.known[0].bytes_received
    while (timer := connection.poll_timeout()) is not None and connection.paths.address == NEW:
        later = timer + 1e-6
        world.endpoint.handle_timers(later)
        world.endpoint.flush(later)
        sent += world.network.sent
        world.network.sent = []
        to_new = sum(len(data) for data, path in sent if path == NEW)
        assert to_new <= 3 * received
    assert connection.is_alive
    assert connection.paths.address == OLD
    assert later < NOW + 5


def test_a_handshake_from_an_address_used_in_its_midst_proves_none() -> None:
    """Our flights went to both: which of them the client read is not known."""
    world = World()
    client = world.client()
    first = exchange(world, client, OLD)
    client._loss.reschedule_data(now=NOW)
    exchange(world, client, NEW, NOW + 1)
    (connection,) = world.endpoint.connections
    assert connection.paths.address == NEW
    take(client, first, NOW + 1)
    sent = exchange(world, client, NEW, NOW + 2)
    assert connection.handshake_complete
    assert connection.validated_path is None
    assert connection.paths.known[0].challenges
    take(client, sent, NOW + 2)
    exchange(world, client, NEW, NOW + 2.01)
    assert connection.validated_path == NEW
