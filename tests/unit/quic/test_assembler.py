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

from quicedge.config.limits import MAX_STREAM_GAPS, STREAM_PAGE
from quicedge.quic.connection.assembler import Assembler, TooManyGaps
from tests.support.hostile import Hostile, varints

SIZE = 3 * STREAM_PAGE + 100
CONTENT = bytes(n % 251 for n in range(SIZE))

PIECES = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), min_size=1, max_size=40)


@given(pieces=PIECES)
def test_any_order_gives_what_aioquic_gives(pieces: list[tuple[int, int]]) -> None:
    stock, ours = QuicStream(stream_id=0), Assembler()
    for first, second in pieces:
        start, end = min(first, second), max(first, second)
        event = stock.receiver.handle_frame(QuicStreamFrame(data=CONTENT[start:end], offset=start))
        assert ours.insert(start, CONTENT[start:end]) == (event.data if event else b"")
        assert ours.start == stock.receiver.starting_offset()


@given(cuts=st.sets(st.integers(1, SIZE - 1), max_size=30), seed=st.integers(0, 1 << 32))
def test_all_pieces_make_the_whole_and_leave_nothing(cuts: set[int], seed: int) -> None:
    pieces = list(itertools.pairwise([0, *sorted(cuts), SIZE]))
    Random(seed).shuffle(pieces)
    assembler = Assembler()
    got = b"".join(assembler.insert(start, CONTENT[start:end]) for start, end in pieces)
    assert got == CONTENT
    assert assembler.is_empty
    assert assembler.held == 0


def test_gaps_are_bounded() -> None:
    assembler = Assembler()
    for number in range(MAX_STREAM_GAPS):
        assembler.insert(2 * number + 1, b"x")
    with pytest.raises(TooManyGaps):
        assembler.insert(2 * MAX_STREAM_GAPS + 1, b"x")


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    return varints(0x0E, stream_id, offset, len(data)) + data


def test_bytes_at_the_far_end_take_a_page_each() -> None:
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
    assert hostile.server.streams.held == len(streams) * STREAM_PAGE
    assert grown < len(streams) * window / 50


def test_a_reset_gives_up_what_waited() -> None:
    hostile = Hostile().connect()
    for offset in range(STREAM_PAGE, 60 * STREAM_PAGE, STREAM_PAGE):
        hostile.send(stream_frame(0, offset, b"x"))
    assert hostile.server.streams.held == 59 * STREAM_PAGE
    hostile.send(varints(0x04, 0, 0, 60 * STREAM_PAGE))
    assert hostile.verdict is None
    assert hostile.server.streams.held == 0
