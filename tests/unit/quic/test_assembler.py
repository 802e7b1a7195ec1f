"""Data out of order: the same bytes as aioquic's own buffer gives, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc
from random import Random

import pytest
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.stream import QuicStream
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import ASSEMBLER_CHUNKS, BYTES_PER_GAP, STREAM_WINDOW
from quicedge.quic.connection.assembler import Assembler, GapBudget, TooManyGaps
from tests.support.hostile import Hostile, varints

SIZE = 12_388
CONTENT = bytes(n % 251 for n in range(SIZE))

PIECES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), min_size=1, max_size=40)


@given(pieces=PIECES)
def test_any_order_gives_what_aioquic_gives(pieces: list[tuple[int, int]]) -> None:
    stock, ours = QuicStream(stream_id=0), Assembler(100)
    for first, second in pieces:
        start, end = min(first, second), max(first, second)
        event = stock.receiver.handle_frame(QuicStreamFrame(data=CONTENT[start:end], offset=start))
        assert ours.insert(start, CONTENT[start:end]) == (event.data if event else b"")
        assert ours.start == stock.receiver.starting_offset()


@given(cuts=st.sets(st.integers(1, SIZE - 1), max_size=30), seed=st.integers(0, 1 << 32))
def test_all_pieces_make_the_whole_and_leave_nothing(cuts: set[int], seed: int) -> None:
    pieces = list(itertools.pairwise([0, *sorted(cuts), SIZE]))
    Random(seed).shuffle(pieces)
    assembler = Assembler(100)
    got = b"".join(assembler.insert(start, CONTENT[start:end]) for start, end in pieces)
    assert got == CONTENT
    assert assembler.is_empty
    assert assembler.held == 0


def test_gaps_are_bounded() -> None:
    assembler = Assembler(64)
    for number in range(64):
        assembler.insert(2 * number + 1, b"x")
    assert assembler.insert(0, b"y") == b"yx", "what comes next in order is no gap"
    assert assembler.gaps == 63
    assembler.insert(1000, b"x")
    with pytest.raises(TooManyGaps):
        assembler.insert(2000, b"x")


def test_gaps_of_all_streams_together_are_bounded() -> None:
    budget = GapBudget(10)
    streams = [Assembler(64, budget) for _ in range(11)]
    for assembler in streams[:10]:
        assembler.insert(5, b"x")
    assert streams[10].insert(0, b"y") == b"y"
    streams[0].clear()
    assert streams[0].is_empty
    assert streams[1].insert(0, b"abcde") == b"abcdex"
    assert budget.held == 8
    for assembler in streams[:2]:
        assembler.insert(50, b"x")
    with pytest.raises(TooManyGaps):
        streams[10].insert(50, b"x")


def test_pieces_in_descending_order_are_joined_now_and_then() -> None:
    assembler = Assembler(64)
    count = 3 * ASSEMBLER_CHUNKS
    for number in range(count, 0, -1):
        assert assembler.insert(2 * number, CONTENT[2 * number : 2 * number + 2]) == b""
        assert assembler.gaps == 1
    assert assembler.insert(0, CONTENT[:2]) == CONTENT[: 2 * count + 2]


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.3, 0.5, 0.7])
def test_no_honest_sender_meets_the_bound(loss: float) -> None:
    """A full window of packets of the base size, of which any share is lost."""
    rng = Random(int(loss * 100))
    for _ in range(20):
        assembler = Assembler(STREAM_WINDOW // BYTES_PER_GAP)
        for offset in range(0, STREAM_WINDOW - 1150, 1150):
            if offset and rng.random() > loss:
                assembler.insert(offset, bytes(1150))


def test_the_farthest_byte_again_and_again_costs_little() -> None:
    assembler = Assembler(64)
    for number in range(64):
        assembler.insert(2 * number + 1, b"x")
    for _ in range(1000):
        assert assembler.insert(127, b"x") == b""
    assert assembler.held == 64


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    return varints(0x0E, stream_id, offset, len(data)) + data


def test_bytes_at_the_far_end_take_no_more_than_bytes() -> None:
    hostile = Hostile().connect()
    window = hostile.server.configuration.max_stream_data
    streams = range(0, 400, 4)
    # All fit into the connection's window here: how much memory that costs is the question.
    hostile.server.streams.window.announced = len(streams) * window
    hostile.send(varints(0x01))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for stream_id in streams:
            hostile.send(stream_frame(stream_id, window - 1, b"x"))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert hostile.verdict is None
    assert hostile.server.streams.held == len(streams)
    assert grown < len(streams) * 4096


def test_a_reset_gives_up_what_waited() -> None:
    hostile = Hostile().connect()
    for offset in range(4096, 60 * 4096, 4096):
        hostile.send(stream_frame(0, offset, b"x"))
    assert hostile.server.streams.held == 59
    hostile.send(varints(0x04, 0, 0, 60 * 4096))
    assert hostile.verdict is None
    assert hostile.server.streams.held == 0
