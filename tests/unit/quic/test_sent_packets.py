"""Runs of packets remembered as one: whatever is acknowledged or lost, no byte is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge import native
from quicedge.quic.connection.sent_packets import RunLog
from tests.support.ranges import runs

CHUNK, SIZE = 1000, 1040
STREAM = object()

LOGS = [RunLog] if RunLog is native.PURE["RunLog"] else [native.PURE["RunLog"], RunLog]


def append(log: Any, first: int, packets: int, start: int, last: int = 300) -> tuple[int, int]:
    """Append a run that ends its stream; returns what follows it: number and offset."""
    end = start + (packets - 1) * CHUNK + last
    log.append(
        first, first + packets, STREAM, start, end, CHUNK, True, SIZE, last + 40, 1.0, 0, 0.0, False
    )
    return first + packets, end


@pytest.mark.parametrize("twin", LOGS)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    gaps=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    acked=st.lists(st.sets(st.integers(0, 45)), max_size=4),
)
def test_taking_ranges_splits_without_loss(
    twin: Any, sizes: list[int], gaps: list[int], acked: list[set[int]]
) -> None:
    log = twin()
    number = offset = 0
    left: dict[int, tuple[int, int, int, bool]] = {}
    for size, gap in zip(sizes, gaps, strict=False):
        number += gap
        for index in range(size):
            last = index == size - 1
            end = offset + index * CHUNK + (300 if last else CHUNK)
            left[number + index] = 340 if last else SIZE, offset + index * CHUNK, end, last
        number, offset = append(log, number, size, offset)
    for numbers in acked:
        settled = log.acknowledge(runs(numbers))
        taken = {number: left.pop(number) for number in list(left) if number in numbers}
        if not taken:
            assert settled is None
            continue
        spans, pieces, nbytes, largest, *sample = settled
        assert spans == runs(taken)
        assert nbytes == sum(size for size, *_ in taken.values())
        assert largest == max(size for size, *_ in taken.values())
        assert sample == [1.0, 0, 0.0, False]
        expected = [(start, end, fin) for _, start, end, fin in taken.values()]
        found = []
        for stream, start, end, fin in pieces:
            assert stream is STREAM
            while start < end:
                stop = next(stop for at, stop, _ in expected if at == start)
                found.append((start, stop, fin and stop == end))
                start = stop
        assert found == expected
    assert log.clear() == sum(size for size, *_ in left.values())
    assert not log


@pytest.mark.parametrize("twin", LOGS)
def test_consecutive_bytes_of_a_stream_are_settled_as_one_piece(twin: Any) -> None:
    log = twin()
    for first in range(0, 40, 10):
        start = first * CHUNK
        log.append(
            first, first + 10, STREAM, start, start + 10 * CHUNK, CHUNK, False, SIZE, SIZE,
            float(first), first, 0.5, False,
        )  # fmt: skip
    assert log.acknowledge([(0, 25)]) == (
        [(0, 25)], [(STREAM, 0, 25 * CHUNK, False)], 25 * SIZE, SIZE, 20.0, 20, 0.5, False
    )  # fmt: skip


@pytest.mark.parametrize("twin", LOGS)
def test_packets_are_lost_by_order_and_by_time(twin: Any) -> None:
    log = twin()
    for first, sent in ((0, 1.0), (10, 2.0), (20, 3.0)):
        log.append(
            first, first + 10, STREAM, first * CHUNK, (first + 10) * CHUNK, CHUNK, False, SIZE,
            SIZE, sent, 0, 0.0, False,
        )  # fmt: skip
    log.acknowledge([(15, 16)])
    due, lost = log.lose(15, 12, 1.5, 2.6)
    assert due == 3.5
    assert lost == [
        (0, 10, 1.0, 10 * SIZE, SIZE, (STREAM, 0, 10 * CHUNK, False)),
        (10, 13, 2.0, 3 * SIZE, SIZE, (STREAM, 10 * CHUNK, 13 * CHUNK, False)),
    ]
    assert log.lose(15, 12, 1.5, 2.6) == (3.5, [])
    assert log.lose(15, 12, 1.5, 3.5) == (
        None, [(13, 15, 2.0, 2 * SIZE, SIZE, (STREAM, 13 * CHUNK, 15 * CHUNK, False))]
    )  # fmt: skip


@pytest.mark.parametrize("twin", LOGS)
def test_the_oldest_packet_can_be_repeated_while_it_is_in_flight(twin: Any) -> None:
    log = twin()
    append(log, 5, 3, 0)
    assert log.oldest_unrepeated() == 5
    assert log.repeat_oldest() == (STREAM, 0, CHUNK, False)
    assert log.oldest_unrepeated() == 6
    _, lost = log.lose(7, 7, 1.0, 9.0)
    assert [(first, stop, piece) for first, stop, _, _, _, piece in lost] == [
        (5, 6, None), (6, 8, (STREAM, CHUNK, 2 * CHUNK + 300, True)),
    ]  # fmt: skip
    assert log.oldest_unrepeated() is None
