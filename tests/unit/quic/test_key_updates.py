"""Key updates: packets of the key phase before that arrive late (RFC 9001 section 6.5)."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pytest
from aioquic import tls

from quicedge.config.limits import OLD_KEYS_PTOS
from quicedge.quic.connection.drops import DropReason
from quicedge.quic.errors import ErrorCode
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
            # A phase cannot be skipped: of the second one packet comes in order, and is answered.
            give(pair, flights[1][:1])
            server.send_ping(1)
            transmit(server, pair.now)
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


@PATHS
def test_a_peer_that_updates_twice_without_an_answer_breaks_the_protocol(give: Deliver) -> None:
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    for _ in range(2):
        client.request_key_update()
        client.send_stream_data(0, b"a" * 100)
        give(pair, flight(pair))
    assert server.close_event is not None
    assert server.close_event.error_code == ErrorCode.KEY_UPDATE_ERROR


@PATHS
def test_old_keys_after_newer_ones_break_the_protocol(give: Deliver) -> None:
    """RFC 9001 section 6.4: a packet sealed with old keys after one sealed with new keys."""
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    keys = client._cryptos[tls.Epoch.ONE_RTT]
    old, phase = copy(keys.send), keys.key_phase
    cid, number = client._peer_cid.cid, client._packet_number
    client.request_key_update()
    client.send_stream_data(0, b"a" * 100)
    give(pair, flight(pair))
    header = bytes((0x41 | phase << 2,)) + cid + (number + 50).to_bytes(2, "big")
    give(pair, [old.encrypt_packet(header, b"\1" + bytes(20), number + 50)])
    assert server.close_event is not None
    assert server.close_event.error_code == ErrorCode.KEY_UPDATE_ERROR


def test_no_update_before_the_handshake_is_confirmed() -> None:
    pair = make_pair()
    server = pair.server.connection
    server.request_key_update()
    pair.run(lambda: bool(server.handshake.phases.send))
    assert not server.handshake_confirmed
    assert server.handshake.phases.updates == 0
    shake_hands(pair)
    transfer_both_ways(pair, 50_000)
    assert server.handshake.phases.updates == 1


def test_a_second_update_waits_until_the_peer_has_dropped_the_oldest_keys() -> None:
    pair = make_pair()
    shake_hands(pair)
    server = pair.server.connection
    phases = server.handshake.phases
    # An idle connection would send nothing.
    pair.server.on_event = lambda event: server.send_ping(1)
    server.send_ping(1)
    server.request_key_update()
    pair.run(lambda: phases.updates == 1 and phases.first_received is not None)
    followed_at = pair.now
    server.request_key_update()
    pair.run(lambda: phases.updates == 2)
    # The estimate of the round trip, and so the probe timeout, shrinks in the meantime.
    assert pair.now >= followed_at + OLD_KEYS_PTOS * server.recovery.probe_timeout()
    assert not server.counters.packets_dropped


def test_worn_out_keys_that_cannot_be_updated_end_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that never follows our update keeps us from the next one."""
    monkeypatch.setattr("quicedge.quic.connection.key_update.KEY_UPDATE_PACKETS", 100)
    monkeypatch.setattr("quicedge.quic.connection.key_update.MAX_SEALED_PACKETS", 150)
    pair = connected()
    server = pair.server.connection
    phases = server.handshake.phases
    for uid in range(400):
        server.send_ping(uid)
        transmit(server, pair.now)
        if not server.is_alive:
            break
    assert phases.updates == 1
    assert phases.sealed <= 152
    assert server.close_event is not None
    assert server.close_event.error_code == ErrorCode.AEAD_LIMIT_REACHED


@PATHS
def test_forged_packets_up_to_the_integrity_limit_end_the_connection(
    give: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quicedge.quic.connection.receiver.AEAD_FAILURES", 20)
    pair = connected()
    server = pair.server.connection
    pair.client.connection.send_stream_data(0, b"a" * 100)
    run = flight(pair)
    forged = run[0][:-1] + bytes((run[0][-1] ^ 1,))
    give(pair, [forged] * 20)
    assert server.is_alive
    give(pair, run)
    assert received(pair, 0) == b"a" * 100
    give(pair, [forged])
    assert server.close_event is not None
    assert server.close_event.error_code == ErrorCode.AEAD_LIMIT_REACHED


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
