"""Runs of packets remembered as one: whatever is acknowledged or lost, no byte is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.batch import Batch, BatchLog
from quicedge.quic.frames import decode_ack, encode_ack

CHUNK, SIZE = 1000, 1040


def batch(first: int, packets: int, offset: int, last: int = 300) -> Batch:
    return Batch(
        first=first, stop=first + packets, stream=None, offset=offset,
        end=offset + (packets - 1) * CHUNK + last, chunk=CHUNK, fin=True, size=SIZE,
        last_size=last + 40, sent_time=1.0, delivered=0, delivered_time=0.0, app_limited=False,
    )  # fmt: skip


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Ascending, disjoint ranges of a set of numbers."""
    out: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if out and out[-1][1] == number:
            out[-1] = out[-1][0], number + 1
        else:
            out.append((number, number + 1))
    return out


def packets_of(batches: list[Batch]) -> dict[int, tuple[int, int, int, bool]]:
    """Number -> bytes on the wire, stream offset, end, fin of every single packet."""
    out = {}
    for item in batches:
        at = item.offset
        for number in range(item.first, item.stop):
            is_last = number == item.stop - 1
            end = item.end if is_last else at + item.chunk
            size = item.last_size if is_last else item.size
            out[number] = size, at, end, item.fin and is_last
            at = end
    return out


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    gaps=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    acked=st.lists(st.sets(st.integers(0, 45)), max_size=4),
)
def test_taking_ranges_splits_without_loss(
    sizes: list[int], gaps: list[int], acked: list[set[int]]
) -> None:
    log = BatchLog()
    number = offset = 0
    for size, gap in zip(sizes, gaps, strict=False):
        number += gap
        item = batch(number, size, offset)
        log.append(item)
        number, offset = item.stop, item.end
    left = packets_of(log.batches)
    in_flight = sum(size for size, *_ in left.values())
    assert in_flight == sum(item.wire_bytes for item in log.batches)
    for numbers in acked:
        taken = packets_of(log.take(runs(numbers)))
        expected = {n: left.pop(n) for n in list(left) if n in numbers}
        assert taken == expected
        assert packets_of(log.batches) == left
        assert [b.first for b in log.batches] == sorted(b.first for b in log.batches)


def test_the_oldest_packet_alone_can_be_taken() -> None:
    log = BatchLog()
    log.append(batch(5, 3, 0))
    first = log.take_first_packet()
    assert first is not None
    assert (first.first, first.offset, first.end, first.fin) == (5, 0, CHUNK, False)
    assert packets_of(log.batches)[7] == (340, 2000, 2300, True)


RANGES = st.sets(st.integers(0, 5000), min_size=1, max_size=60).map(runs)


@given(RANGES, st.integers(0, 2**20), st.booleans())
def test_ack_frames_round_trip(ranges: list[tuple[int, int]], delay: int, ecn: bool) -> None:
    counts = (7, 0, 3) if ecn else None
    frame, count = encode_ack([range(*r) for r in ranges], delay, 2000, counts)
    assert count == len(ranges)
    got, got_delay, end = decode_ack(frame, 1)
    assert (got, got_delay) == (ranges, delay)
    assert frame[end:] == (bytes((7, 0, 3)) if ecn else b"")


@given(RANGES, st.integers(20, 60))
def test_an_ack_frame_without_room_keeps_the_newest(
    ranges: list[tuple[int, int]], room: int
) -> None:
    frame, count = encode_ack([range(*r) for r in ranges], 0, room)
    assert len(frame) <= room
    assert decode_ack(frame, 1)[0] == ranges[-count:]
