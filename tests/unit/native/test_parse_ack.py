"""ACK frames are parsed alike by the compiled core and by its twin in Python."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quicedge.quic.frames import Ack, FrameType
from tests.support.twins import both

PURE, COMPILED = both("parse_ack")
KINDS = st.sampled_from([FrameType.ACK, FrameType.ACK_ECN])


def alike(payload: bytes, at: int, kind: int) -> object:
    pure, compiled = PURE(payload, at, kind), COMPILED(payload, at, kind)
    assert pure == compiled
    return pure


@given(
    st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(1, 1 << 20)), min_size=1, max_size=300),
    st.integers(0, (1 << 62) - 1),
    st.none() | st.tuples(*[st.integers(0, (1 << 62) - 1)] * 3),
    st.binary(max_size=5),
)
def test_frames_of_many_ranges_are_parsed_alike(
    steps: list[tuple[int, int]], delay: int, ecn: tuple[int, int, int] | None, behind: bytes
) -> None:
    ranges, at = [], 0
    for gap, length in steps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    frame = Ack(ranges, delay, ecn).encode()
    found = alike(frame + behind, 1, frame[0])
    assert found == (ranges, delay, ecn, len(frame))


@given(st.binary(max_size=60), st.integers(0, 10), KINDS)
@example(b"\xc0" + bytes(7) + b"\xff" * 30, 0, FrameType.ACK)
@example(b"\xff" * 40, 0, FrameType.ACK_ECN)
def test_any_bytes_are_parsed_alike(payload: bytes, at: int, kind: int) -> None:
    alike(payload, at, kind)


@pytest.mark.parametrize("kind", [FrameType.ACK, FrameType.ACK_ECN])
def test_every_cut_of_a_frame_is_malformed_to_both(kind: int) -> None:
    ecn = (5, 70, 20_000) if kind == FrameType.ACK_ECN else None
    frame = Ack([(0, 3), (9, 700), (100_000, 100_001)], 99, ecn).encode()
    for cut in range(1, len(frame)):
        assert alike(frame[:cut], 1, kind) is None
    assert alike(frame, 1, kind) is not None


def test_a_count_of_ranges_that_are_not_there_costs_nothing() -> None:
    frame = b"\x40\x64\x00" + b"\xff" * 8 + b"\x00"
    assert alike(frame, 0, FrameType.ACK) is None
