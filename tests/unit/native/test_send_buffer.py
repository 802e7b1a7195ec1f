"""The compiled send buffer and its twin in Python, fed alike, hold the same."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quicedge.quic.connection.send_buffer  # noqa: F401  it declares the twin
from tests.support.twins import both

PURE, COMPILED = both("SendBuffer")

SIZES = (0, 1, 7, 100, 1023, 1024, 1500, 9000)


def state(buffer: Any) -> tuple[Any, ...]:
    return (
        buffer.base, buffer.end, buffer.highest, buffer.fin_offset, buffer.fin_pending,
        buffer.pending, buffer.has_pending, buffer.is_acknowledged, buffer.unsent,
    )  # fmt: skip


@settings(max_examples=200)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_happens_to_the_bytes_both_hold_the_same(seed: int) -> None:
    rng = Random(seed)
    twins = PURE(), COMPILED()
    content = b""
    in_flight: list[tuple[int, int, bool]] = []

    def alike(name: str, *arguments: Any) -> Any:
        answers = [getattr(twin, name)(*arguments) for twin in twins]
        assert answers[0] == answers[1], name
        return answers[0]

    for _ in range(rng.randrange(120)):
        match rng.choice(["write", "take", "take", "take", "acked", "acked", "lost", "repeat"]):
            case "write" if twins[0].fin_offset is None:
                piece = rng.randbytes(rng.choice(SIZES))
                content += piece
                alike("write", piece, rng.random() < 0.05)
            case "take" if twins[0].has_pending:
                limit, credit = rng.randrange(20_000), rng.randrange(-5, 20_000)
                until = alike("sendable_until", limit, credit)
                if until is not None:
                    start = (twins[0].pending or (until, until))[0]
                    stop = min(until, start + rng.choice((1, 40, 1200, 5000)))
                    assert alike("read", start, stop) == content[start:stop]
                    in_flight.append((start, stop, alike("take", start, stop)))
            case "acked" | "lost" as fate if in_flight:
                at = rng.randrange(len(in_flight))
                start, stop, fin = in_flight.pop(at)
                # a part of what was sent together
                cut = rng.randrange(start, stop) if stop > start and rng.random() < 0.5 else start
                if cut > start:
                    in_flight.append((start, cut, False))
                alike(fate, cut, stop, fin)
            case "repeat":
                alike("repeat")
        assert state(twins[0]) == state(twins[1])
        base, end = twins[0].base, twins[0].end
        assert alike("read", base, end) == content[base:end]
    alike("discard")
    assert state(twins[0]) == state(twins[1])


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
def test_bytes_that_are_not_buffered_cannot_be_read(twin: Any) -> None:
    buffer = twin()
    buffer.write(b"x" * 3000, False)
    buffer.write(b"y" * 3000, False)
    for start, stop in ((0, 6001), (5999, 6002), (7000, 7001)):
        with pytest.raises(ValueError, match="not buffered"):
            buffer.read(start, stop)
    buffer.take(0, 4000)
    buffer.acked(0, 4000, False)
    with pytest.raises(ValueError, match="not buffered"):
        buffer.read(0, 10)
    assert buffer.read(4000, 6000) == b"y" * 2000
    assert buffer.read(4000, 4000) == b""


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
def test_what_was_written_is_kept_without_a_copy_and_released_once_acknowledged(twin: Any) -> None:
    import sys

    data = bytes(5000)
    before = sys.getrefcount(data)
    buffer = twin()
    buffer.write(data, False)
    buffer.write(data, False)
    assert sys.getrefcount(data) == before + 2
    buffer.take(0, 10_000)
    buffer.acked(0, 5000, False)
    assert sys.getrefcount(data) == before + 1
    buffer.acked(5000, 10_000, False)
    assert sys.getrefcount(data) == before
    buffer.write(data, False)
    buffer.discard()
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("twin", [PURE, COMPILED], ids=["pure", "compiled"])
def test_nothing_can_be_written_behind_the_end(twin: Any) -> None:
    buffer = twin()
    buffer.write(b"", True)
    with pytest.raises(ValueError, match="end"):
        buffer.write(b"x", False)
