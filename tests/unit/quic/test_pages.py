"""Stream data out of order: the same bytes as aioquic's own buffer gives, in less memory."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.stream import FinalSizeError, QuicStream
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import STREAM_PAGE
from quicedge.quic.adapter.pages import Pages, use_pages
from tests.support.hostile import Hostile, varints

SIZE = 3 * STREAM_PAGE + 100
CONTENT = bytes(n % 251 for n in range(SIZE))

PIECES = st.lists(
    st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.booleans()), min_size=1, max_size=40
)


def outcome(stream: QuicStream, start: int, end: int, fin: bool) -> object:
    data = CONTENT[start:end]
    try:
        event = stream.receiver.handle_frame(QuicStreamFrame(data=data, fin=fin, offset=start))
    except FinalSizeError as error:
        return str(error)
    return event and (event.data, event.end_stream)


@given(pieces=PIECES)
def test_any_order_gives_what_aioquic_gives(pieces: list[tuple[int, int, bool]]) -> None:
    plain, paged = QuicStream(stream_id=0), QuicStream(stream_id=0)
    use_pages(paged)
    for start, end, last in pieces:
        fin = last and max(start, end) == SIZE
        arguments = min(start, end), max(start, end), fin
        assert outcome(paged, *arguments) == outcome(plain, *arguments)
        assert len(paged.receiver._buffer) == len(plain.receiver._buffer)


@given(cuts=st.sets(st.integers(1, SIZE - 1), max_size=30), seed=st.randoms())
def test_all_pieces_make_the_whole_and_leave_nothing(cuts: set[int], seed: object) -> None:
    bounds = [0, *sorted(cuts), SIZE]
    pieces = list(itertools.pairwise(bounds))
    seed.shuffle(pieces)  # type: ignore[attr-defined]
    stream = QuicStream(stream_id=0)
    use_pages(stream)
    got = b""
    for start, end in pieces:
        event = stream.receiver.handle_frame(
            QuicStreamFrame(data=CONTENT[start:end], fin=end == SIZE, offset=start)
        )
        got += event.data if event else b""
    assert got == CONTENT
    assert held(stream) == 0


def held(stream: QuicStream) -> int:
    pages = stream.receiver._buffer
    assert isinstance(pages, Pages)
    return pages.held


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    return varints(0x0E, stream_id, offset, len(data)) + data


@pytest.mark.parametrize("streams", [range(0, 400, 4), range(396, -4, -4)], ids=["up", "down"])
def test_bytes_at_the_far_end_take_a_page_each(streams: range) -> None:
    # Downwards, the first one opens all others (RFC 9000 section 2.1).
    hostile = Hostile().connect()
    window = hostile.server._stream_window
    # All fit into the connection's window here: how much memory that costs is the question.
    hostile.server._local_max_data.value = len(streams) * window
    hostile.send(varints(0x01))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for prefix in (b"", b"\x01"):  # the short path and aioquic's
            for stream_id in streams:
                hostile.send(prefix + stream_frame(stream_id, window - 1, b"x"))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert hostile.verdict is None
    assert [held(hostile.server._streams[n]) for n in streams] == [STREAM_PAGE] * len(streams)
    assert grown < len(streams) * window / 50


def test_a_reset_gives_up_what_waited() -> None:
    hostile = Hostile().connect()
    for offset in range(STREAM_PAGE, 60 * STREAM_PAGE, STREAM_PAGE):
        hostile.send(stream_frame(0, offset, b"x"))
    stream = hostile.server._streams[0]
    assert held(stream) == 59 * STREAM_PAGE
    hostile.send(varints(0x04, 0, 0, 60 * STREAM_PAGE))
    assert hostile.verdict is None
    assert not stream.receiver._buffer
