"""One client's frames take no more than its event loop iteration."""

from __future__ import annotations

from quicedge.config.limits import (
    DENSE_FRAMES_PER_PACKET,
    DENSE_RUN,
    FRAMES_PER_TURN,
    MAX_BATCH_PACKETS,
    UDP_BYTES_PER_WAKEUP,
    WAITING_BYTES_PER_CLIENT,
)
from quicedge.quic.frame_turns import FrameTurns, WaitingRun
from quicedge.quic.frames import encode_varint
from tests.support.hostile import Hostile
from tests.support.world import CLIENT, NOW, Path

ONE, OTHER = "192.0.2.1", "198.51.100.1"


def run(size: int = 1200, count: int = 1) -> WaitingRun:
    return WaitingRun([bytes(size)] * count, None, 0)


def test_a_client_that_had_its_turn_waits_and_others_do_not() -> None:
    turns = FrameTurns()
    assert turns.worked(ONE, 10, FRAMES_PER_TURN - 1)
    assert turns.may_work(ONE)
    assert not turns.worked(ONE, 1, 1)
    assert not turns.may_work(ONE)
    assert turns.may_work(OTHER)
    turns.begin()
    assert turns.may_work(ONE)


def test_what_waits_keeps_its_order_and_what_follows_waits_behind_it() -> None:
    turns = FrameTurns()
    first, second = run(100), run(200)
    assert turns.wait(ONE, first)
    assert not turns.may_work(ONE)
    assert turns.wait(ONE, second)
    assert turns.waiting
    ((client, runs),) = turns.take()
    assert (client, list(runs)) == (ONE, [first, second])
    assert not turns.waiting
    assert turns.waiting_bytes == 0


def test_what_waits_is_bounded() -> None:
    turns = FrameTurns()
    count = 0
    while turns.wait(ONE, run()):
        count += 1
    assert count == WAITING_BYTES_PER_CLIENT // 1200
    assert turns.wait(OTHER, run()), "another client's room is its own"


def test_dense_packets_are_handled_few_at_a_time() -> None:
    turns = FrameTurns()
    assert turns.run_length(ONE) == MAX_BATCH_PACKETS
    turns.worked(ONE, 4, 4 * DENSE_FRAMES_PER_PACKET + 1)
    assert turns.run_length(ONE) == DENSE_RUN
    assert turns.run_length(OTHER) == MAX_BATCH_PACKETS
    turns.worked(ONE, 4, 8)
    assert turns.run_length(ONE) == MAX_BATCH_PACKETS, "one odd packet is soon forgotten"


def test_no_honest_client_meets_it_with_all_that_is_read_in_a_turn() -> None:
    """Full packets of an upload: STREAM, and every other one an ACK or a limit."""
    turns = FrameTurns()
    packets = UDP_BYTES_PER_WAKEUP // 1200
    assert turns.worked(ONE, packets, 2 * packets)


def test_a_connection_of_many_small_frames_does_not_hold_the_loop() -> None:
    hostile = Hostile().connect()
    endpoint = hostile.world.endpoint
    pieces = b"".join(
        b"\x0e" + encode_varint(0) + encode_varint(2 * n + 1) + b"\x01x" for n in range(50)
    )
    flood = [hostile.packet(pieces * 4) for _ in range(100)]
    before = hostile.server.counters.frames_received
    endpoint.receive_run(flood, CLIENT, NOW)
    # Nobody knew that its packets are dense: the first run goes through whole.
    first = hostile.server.counters.frames_received - before
    assert first <= MAX_BATCH_PACKETS * 201
    assert endpoint.waiting

    stranger = Path(("198.51.100.9", 7))
    honest = hostile.world.client()
    for data, _ in honest.datagrams_to_send(NOW):
        endpoint.receive(data, stranger, NOW)
    endpoint.flush(NOW)
    assert any(path == stranger for _, path in hostile.world.network.sent), "served at once"

    before = hostile.server.counters.frames_received
    endpoint.receive_waiting(NOW)
    assert hostile.server.counters.frames_received - before <= FRAMES_PER_TURN + DENSE_RUN * 201
    hostile.world.turn()
    assert not endpoint.waiting
    assert hostile.server.counters.frames_received - before + first >= 100 * 200
