"""The frame table: every frame survives encoding and parsing, and is described by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic import frames
from quicedge.quic.frames import (
    FRAME_TYPES,
    Ack,
    Epoch,
    FrameError,
    Padding,
    describe,
    encode_ack,
    parse_frame,
)
from tests.support.ranges import runs

INTEGER = st.integers(0, (1 << 62) - 1)
COUNT = st.integers(0, 1 << 60)
DATA = st.binary(max_size=50)


@st.composite
def stream(draw: Any) -> frames.Stream:
    return frames.Stream(
        draw(INTEGER), draw(st.integers(0, (1 << 62) - 100)), draw(DATA), draw(st.booleans())
    )


@st.composite
def new_connection_id(draw: Any) -> frames.NewConnectionId:
    number = draw(INTEGER)
    return frames.NewConnectionId(
        number,
        draw(st.integers(0, number)),
        draw(st.binary(min_size=1, max_size=20)),
        draw(st.binary(min_size=16, max_size=16)),
    )


PATH_DATA = st.binary(min_size=8, max_size=8)
FRAMES = st.one_of(
    st.builds(frames.Ping),
    st.builds(frames.ResetStream, INTEGER, INTEGER, INTEGER),
    st.builds(frames.StopSending, INTEGER, INTEGER),
    st.builds(frames.Crypto, st.integers(0, 1 << 61), DATA),
    st.builds(frames.NewToken, DATA),
    stream(),
    st.builds(frames.MaxData, INTEGER),
    st.builds(frames.MaxStreamData, INTEGER, INTEGER),
    st.builds(frames.MaxStreamsBidi, COUNT),
    st.builds(frames.MaxStreamsUni, COUNT),
    st.builds(frames.DataBlocked, INTEGER),
    st.builds(frames.StreamDataBlocked, INTEGER, INTEGER),
    st.builds(frames.StreamsBlockedBidi, COUNT),
    st.builds(frames.StreamsBlockedUni, COUNT),
    new_connection_id(),
    st.builds(frames.RetireConnectionId, INTEGER),
    st.builds(frames.PathChallenge, PATH_DATA),
    st.builds(frames.PathResponse, PATH_DATA),
    st.builds(frames.ConnectionClose, INTEGER, st.none() | INTEGER, DATA),
    st.builds(frames.HandshakeDone),
    st.builds(frames.Datagram, DATA),
)


@given(FRAMES, DATA)
def test_every_frame_survives_encoding_and_parsing(frame: Any, behind: bytes) -> None:
    encoded = frame.encode()
    kind, parsed, end = parse_frame(encoded + behind, 0)
    assert (parsed, end) == (frame, len(encoded))
    spec = FRAME_TYPES[kind]
    described = frame.describe()["frame_type"].upper()
    assert described == spec.name or (described, spec.name) == ("CONNECTION_CLOSE",) * 2


@given(FRAMES, st.data())
def test_a_frame_cut_short_is_refused(frame: Any, data: Any) -> None:
    encoded = frame.encode()
    size = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(FrameError):
        parse_frame(encoded[:size], 0)


RANGES = st.sets(st.integers(0, 5000), min_size=1, max_size=60).map(runs)


@given(RANGES, st.integers(0, 2**20), st.booleans())
def test_ack_frames_round_trip(ranges: list[tuple[int, int]], delay: int, ecn: bool) -> None:
    counts = (7, 0, 3) if ecn else None
    frame, count = encode_ack(ranges, delay, 2000, counts)
    assert count == len(ranges)
    kind, parsed, end = parse_frame(frame, 0)
    assert kind == (3 if ecn else 2)
    assert parsed == Ack(ranges, delay, counts)
    assert end == len(frame)


@given(RANGES, st.integers(20, 60))
def test_an_ack_frame_without_room_keeps_the_newest(
    ranges: list[tuple[int, int]], room: int
) -> None:
    frame, count = encode_ack(ranges, 0, room)
    assert len(frame) <= room
    assert parse_frame(frame, 0)[1].ranges == ranges[-count:]


@given(st.integers(1, 2000))
def test_padding_is_one_frame(length: int) -> None:
    _, padding, end = parse_frame(bytes(length) + b"\x01", 0)
    assert padding == Padding(length)
    assert end == length


def test_every_type_belongs_to_the_epochs_of_table_3() -> None:
    everywhere = sum(1 << epoch for epoch in Epoch)
    assert FRAME_TYPES[0x01].epochs == everywhere
    assert FRAME_TYPES[0x02].epochs == everywhere & ~(1 << Epoch.ZERO_RTT)
    assert FRAME_TYPES[0x1E].epochs == 1 << Epoch.ONE_RTT
    assert {kind for kind, spec in FRAME_TYPES.items() if not spec.eliciting} == {
        0x00, 0x02, 0x03, 0x1C, 0x1D,
    }  # fmt: skip
    assert {kind for kind, spec in FRAME_TYPES.items() if spec.probing} == {0, 0x18, 0x1A, 0x1B}


@given(st.binary(max_size=200))
def test_describing_never_fails(payload: bytes) -> None:
    for frame in describe(payload, 3):
        assert frame["frame_type"]


def test_a_frame_type_of_two_bytes_is_encoded_as_such() -> None:
    class Extension(frames.MaxData, frozen=True, gc=False):
        kind = 0x40

    assert Extension(7).encode() == b"\x40\x40\x07"
