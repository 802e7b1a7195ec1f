"""Path MTU discovery: from the ceiling down, and back to 1200 when a path swallows datagrams."""

from __future__ import annotations

import pytest

from quicedge.config.limits import BASE_DATAGRAM_SIZE, MTU_BLACK_HOLE_COOLDOWN, MTU_PROBE_AFTER
from quicedge.quic.pmtud import PathMtu
from tests.support.quicpair import make_pair


def search(path: int, ceiling: int = 1472, now: float = 0.0) -> tuple[PathMtu, list[int]]:
    """Probe a path that carries datagrams up to `path` bytes."""
    mtu = PathMtu(ceiling)
    probes = []
    while (size := mtu.next_probe(now)) is not None:
        assert mtu.next_probe(now) is None  # one at a time
        probes.append(size)
        mtu.on_probe(size, size <= path)
    return mtu, probes


@pytest.mark.parametrize(
    ("path", "found"), [(1500, 1472), (1472, 1472), (1452, 1404), (1380, 1352), (1300, 1280),
                        (1210, 1200)],
)  # fmt: skip
def test_the_largest_step_that_fits_is_found(path: int, found: int) -> None:
    mtu, probes = search(path)
    assert mtu.current == found
    assert len(probes) <= 8


def test_a_larger_size_is_looked_for_again_later() -> None:
    mtu, _ = search(1300)
    assert mtu.next_probe(10) is None
    assert mtu.next_probe(601) == 1472


def test_a_black_hole_falls_back_to_the_base_for_a_while() -> None:
    mtu, _ = search(1500)
    mtu.on_black_hole(5.0)
    assert mtu.current == 1200
    assert mtu.next_probe(5.0 + MTU_BLACK_HOLE_COOLDOWN - 1) is None
    assert mtu.next_probe(5.0 + MTU_BLACK_HOLE_COOLDOWN) == 1472


def test_a_probe_from_before_the_black_hole_says_nothing() -> None:
    mtu = PathMtu(1472)
    size = mtu.next_probe(0.0)
    assert size == 1472
    mtu.on_black_hole(5.0)
    assert not mtu.on_probe(size, delivered=True)
    assert mtu.current == 1200


def test_the_peer_may_take_less() -> None:
    mtu = PathMtu(1472)
    mtu.limit(1300)
    assert mtu.next_probe(0) == 1300


def test_nothing_to_find_below_the_base() -> None:
    assert PathMtu(1200).next_probe(0) is None


def test_a_connection_with_small_exchanges_sends_no_probes_and_a_transfer_does() -> None:
    pair = make_pair(own_client=True, mtu_ceiling=1452)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)

    def exchange(size: int) -> None:
        stream_id = client.get_next_available_stream_id()
        client.send_stream_data(stream_id, b"request", end_stream=True)
        pair.run(lambda: stream_id in server.streams)
        server.send_stream_data(stream_id, bytes(size), end_stream=True)
        pair.run(lambda: server.streams.unacknowledged(stream_id) == 0)

    for _ in range(10):
        exchange(1000)
    assert server.max_datagram_size == BASE_DATAGRAM_SIZE
    # The handshake and the responses: no larger datagram was tried.
    assert server.recovery.packets_lost == 0
    assert server.paths.active.mtu.next_probe(pair.now) == 1452
    server.paths.active.mtu.reset()
    exchange(4 * MTU_PROBE_AFTER)
    assert server.max_datagram_size == 1452
