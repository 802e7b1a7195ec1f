"""Runs of packets remembered as one: whatever is acknowledged or lost, no byte is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.connection.sent_packets import RunLog, SentPacketRun
from tests.support.ranges import runs

CHUNK, SIZE = 1000, 1040


def run_of(first: int, packets: int, offset: int, last: int = 300) -> SentPacketRun:
    return SentPacketRun(
        first=first, stop=first + packets, stream=None, offset=offset,
        end=offset + (packets - 1) * CHUNK + last, chunk=CHUNK, fin=True, size=SIZE,
        last_size=last + 40, sent_time=1.0, delivered=0, delivered_time=0.0, app_limited=False,
    )  # fmt: skip


def packets_of(items: list[SentPacketRun]) -> dict[int, tuple[int, int, int, bool]]:
    """Number -> bytes on the wire, stream offset, end, fin of every single packet."""
    out = {}
    for item in items:
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
    log = RunLog()
    number = offset = 0
    for size, gap in zip(sizes, gaps, strict=False):
        number += gap
        item = run_of(number, size, offset)
        log.append(item)
        number, offset = item.stop, item.end
    left = packets_of(log.runs)
    in_flight = sum(size for size, *_ in left.values())
    assert in_flight == sum(item.wire_bytes for item in log.runs)
    for numbers in acked:
        taken = packets_of(log.take(runs(numbers)))
        expected = {n: left.pop(n) for n in list(left) if n in numbers}
        assert taken == expected
        assert packets_of(log.runs) == left
        assert [b.first for b in log.runs] == sorted(b.first for b in log.runs)


def test_the_oldest_packet_can_be_repeated_while_it_is_in_flight() -> None:
    log = RunLog()
    log.append(run_of(5, 3, 0))
    whole = packets_of(log.runs)
    first = log.split_first(0)
    assert (first.first, first.offset, first.end, first.fin) == (5, 0, CHUNK, False)
    assert packets_of(log.runs) == whole
    first.resent = True
    found = log.oldest_unrepeated()
    assert found is not None
    assert found[1].first == 6
