"""Key updates: packets of the key phase before that arrive late (RFC 9001 section 6.5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aioquic import tls

from quicedge.config.limits import OLD_KEYS_PTOS
from quicedge.quic.connection.drops import DropReason
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair, transmit
from tests.unit.quic.test_pair import shake_hands, transfer_both_ways
from tests.unit.quic.test_runs import connected, deliver, flight, received

Deliver = Callable[[Pair, list[bytes]], None]


def one_by_one(pair: Pair, run: list[bytes]) -> None:
    for data in run:
        pair.server.connection.receive_datagram(data, pair.client.address, pair.now)
    pair.server.drain()


def by_the_general_path(pair: Pair, run: list[bytes]) -> None:
    pair.server.connection._short_run = lambda *_: []
    one_by_one(pair, run)


PATHS = pytest.mark.parametrize("give", [deliver, one_by_one, by_the_general_path])


@PATHS
def test_packets_from_before_an_update_by_the_peer_are_opened_late(give: Deliver) -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    client.send_stream_data(0, b"a" * 5000)
    late = flight(pair)
    client.request_key_update()
    client.send_stream_data(0, b"b" * 5000)
    give(pair, flight(pair))
    assert server.handshake.phases.phase == 1
    assert received(pair, 0) == b""
    give(pair, late)
    assert received(pair, 0) == b"a" * 5000 + b"b" * 5000
    assert not server.counters.packets_dropped
    assert server.handshake.phases.phase == 1


@PATHS
def test_packets_on_their_way_when_we_update_are_opened(give: Deliver) -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    client.send_stream_data(0, b"a" * 5000)
    under_way = flight(pair)
    server.request_key_update()
    server.send_ping(1)
    answers = transmit(server, pair.now)
    assert server.handshake.phases.phase == 1
    give(pair, under_way)
    assert received(pair, 0) == b"a" * 5000
    for data, *_ in answers:
        client.receive_datagram(data, pair.server.address, pair.now)
    client.send_stream_data(0, b"b" * 5000)
    give(pair, flight(pair))
    assert received(pair, 0) == b"a" * 5000 + b"b" * 5000
    assert not server.counters.packets_dropped


@PATHS
def test_one_update_after_the_other_is_followed_in_any_order_of_the_last_two(give: Deliver) -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    flights = []
    for letter in (b"a", b"b", b"c"):
        client.send_stream_data(0, letter * 3000)
        flights.append(flight(pair))
        client.request_key_update()
    for number in (0, 2, 1):
        if number == 2:
            # A phase cannot be skipped: of the second one packet comes in order.
            give(pair, flights[1][:1])
        give(pair, flights[number])
    assert received(pair, 0) == b"a" * 3000 + b"b" * 3000 + b"c" * 3000
    assert server.counters.packets_dropped.keys() <= {
        DropReason.DUPLICATE,
        DropReason.GENERAL,
        DropReason.DECRYPTION_FAILURE,
    }
    assert sum(server.counters.packets_dropped.values()) == 1  # the one that was given twice


def test_old_keys_are_gone_three_probe_timeouts_after_the_update() -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    client.send_stream_data(0, b"a" * 3000)
    late = flight(pair)
    client.request_key_update()
    client.send_stream_data(0, b"b" * 100)
    deliver(pair, flight(pair))
    client.send_stream_data(0, b"c" * 100)
    deliver(pair, flight(pair))
    pair.now += OLD_KEYS_PTOS * server.recovery.probe_timeout()
    server.handle_timeout(pair.now)
    deliver(pair, late)
    assert received(pair, 0) == b""
    assert server.counters.packets_dropped[DropReason.DECRYPTION_FAILURE] == len(late)


def test_updates_in_mid_transfer_lose_no_packet_to_reordering() -> None:
    pair = make_pair(Link(jitter=0.02), Link(jitter=0.02))
    shake_hands(pair)
    for _ in range(4):
        pair.client.connection.request_key_update()
        transfer_both_ways(pair, 50_000)
        pair.server.connection.request_key_update()
        transfer_both_ways(pair, 50_000)
    assert not pair.server.connection.counters.packets_dropped


def test_keys_that_sealed_many_packets_are_updated_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quicedge.quic.connection.key_update.KEY_UPDATE_PACKETS", 200)
    pair = make_pair(Link(jitter=0.005), Link(jitter=0.005))
    shake_hands(pair)
    for _ in range(3):
        transfer_both_ways(pair, 500_000)
    server = pair.server.connection
    assert server.handshake.phases.updates >= 3
    server.send_ping(1)
    keys = pair.client.connection._cryptos[tls.Epoch.ONE_RTT]
    pair.run(lambda: keys.key_phase == server.handshake.phases.phase)
    assert not server.counters.packets_dropped


def test_an_ordinary_connection_needs_no_update() -> None:
    pair = make_pair()
    shake_hands(pair)
    transfer_both_ways(pair, 500_000)
    assert pair.server.connection.handshake.phases.updates == 0
