"""Bytes sent, lost and acknowledged in any order: all of them arrive, none is kept longer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.connection.send_buffer import SendBuffer


@given(seed=st.integers(0, 1 << 32), size=st.integers(0, 500))
def test_whatever_is_lost_is_sent_again_until_all_is_acknowledged(seed: int, size: int) -> None:
    rng = Random(seed)
    content = rng.randbytes(size)
    buffer = SendBuffer()
    received: dict[int, int] = {}
    ended = False
    in_flight: list[tuple[int, int, bool]] = []
    written = 0
    for _ in range(10_000):
        if written < size or buffer.fin_offset is None:
            piece = content[written : written + rng.randrange(60)]
            written += len(piece)
            buffer.write(piece, fin=written == size)
        if buffer.has_pending and rng.random() < 0.7:
            start, stop = buffer.pending or (buffer.end, buffer.end)
            stop = min(stop, start + 1 + rng.randrange(40))
            data = buffer.read(start, stop)
            assert data == content[start:stop]
            in_flight.append((start, stop, buffer.take(start, stop)))
        if in_flight and rng.random() < 0.8:
            start, stop, fin = in_flight.pop(rng.randrange(len(in_flight)))
            if rng.random() < 0.4:
                buffer.lost(start, stop, fin)
            else:
                received |= dict.fromkeys(range(start, stop), 1)
                ended |= fin
                buffer.acked(start, stop, fin)
        if buffer.is_acknowledged:
            break
    assert buffer.is_acknowledged
    assert ended
    assert len(received) == size
    assert buffer.base == buffer.end == size
    assert not buffer.has_pending
    assert buffer.unsent == 0


def test_an_end_alone_that_is_acknowledged_before_the_data() -> None:
    buffer = SendBuffer()
    buffer.write(b"data", fin=False)
    assert not buffer.take(0, 4)
    buffer.write(b"", fin=True)
    assert buffer.take(4, 4)
    buffer.acked(4, 4, fin=True)
    assert not buffer.is_acknowledged
    buffer.acked(0, 4, fin=False)
    assert buffer.is_acknowledged


def test_nothing_can_be_written_behind_the_end() -> None:
    buffer = SendBuffer()
    buffer.write(b"", fin=True)
    with pytest.raises(ValueError, match="end"):
        buffer.write(b"x", fin=False)
