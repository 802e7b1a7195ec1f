"""Frames of WebSockets are followed, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import TUNNEL_FRAMES_PER_READ
from quicedge.http.websocket import GOING_AWAY, NO_STATUS, FrameFollower, close_frame
from tests.support.tunnels import BINARY, CLOSE, PING, TEXT, close_payload, ws_frame

MASK = b"\xa5\x5a\x0f\xf0"
SIZES = (0, 1, 125, 126, 200, 65535, 65536, 70000)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in (*pieces, data[at:]) if piece]


@given(
    frames=st.lists(st.tuples(st.sampled_from((TEXT, BINARY, PING)), st.sampled_from(SIZES))),
    sizes=st.lists(st.integers(1, 70000)),
    mask=st.sampled_from((b"", MASK)),
    code=st.integers(1000, 4999),
)
def test_boundaries_and_the_close_code_are_found_in_any_pieces(
    frames: list[tuple[int, int]], sizes: list[int], mask: bytes, code: int
) -> None:
    follower = FrameFollower()
    data = b"".join(
        ws_frame(kind, bytes(min(size, 125) if kind == PING else size), mask=mask)
        for kind, size in frames
    )
    for piece in cut(data, sizes):
        assert follower.follow(piece) == len(piece)
    assert follower.at_boundary
    assert follower.close_code is None
    for piece in cut(ws_frame(CLOSE, close_payload(code) + b"bye", mask=mask), [1, 1, 1, 1]):
        follower.follow(piece)
    assert follower.close_code == code
    assert not follower.at_boundary
    assert not follower.is_lost


@given(first=st.sampled_from(SIZES), seen=st.integers(1, 70000), mask=st.sampled_from((b"", MASK)))
def test_the_end_of_the_current_frame_is_found(first: int, seen: int, mask: bytes) -> None:
    frame = ws_frame(BINARY, bytes(first), mask=mask)
    seen = min(seen, len(frame) - 1)
    follower = FrameFollower()
    follower.follow(frame[:seen])
    rest = frame[seen:] + ws_frame(TEXT, b"next", mask=mask)
    assert follower.follow(rest, to_boundary=True) == len(frame) - seen
    assert follower.at_boundary


def test_a_close_frame_without_a_code() -> None:
    follower = FrameFollower()
    follower.follow(ws_frame(CLOSE, mask=MASK))
    assert follower.close_code == NO_STATUS


def test_our_own_close_frame() -> None:
    follower = FrameFollower()
    follower.follow(close_frame(GOING_AWAY))
    assert close_frame(GOING_AWAY) == ws_frame(CLOSE, close_payload(1001))
    assert follower.close_code == 1001


def test_a_flood_of_tiny_frames_is_no_longer_followed() -> None:
    follower = FrameFollower()
    follower.follow(ws_frame(TEXT) * (TUNNEL_FRAMES_PER_READ + 1))
    assert follower.is_lost
    assert not follower.at_boundary
    assert follower.follow(b"anything") == 8


@pytest.mark.parametrize("size", [64, 1000])
def test_reads_full_of_ordinary_messages_are_followed(size: int) -> None:
    follower = FrameFollower()
    frame = ws_frame(TEXT, bytes(size), mask=MASK)
    data = frame * (256 * 1024 // len(frame))
    for _ in range(100):
        follower.follow(data)
    assert follower.at_boundary
