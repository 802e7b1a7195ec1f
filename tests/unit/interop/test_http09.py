"""HTTP/0.9 behind the calls of HTTP/3."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.endpoint.http09 import MAX_REQUEST_LINE, Http09Connection
from quicedge.http.errors import H3ErrorCode
from quicedge.http.h3_types import H3StreamError
from quicedge.http.message import Fields
from quicedge.http.priority import Priority


class Peer:
    """Transport and handler in one, which note what they are told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes, bool]] = []
        self.reset: list[int] = []
        self.requests: list[tuple[int, bytes]] = []
        self.ended: list[int] = []
        self.errors: list[int] = []
        self.credit = 0
        self.http09 = Http09Connection(self, self, authority=b"server4")

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.sent.append((stream_id, data, end_stream))

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        self.reset.append(stream_id)

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        raise AssertionError("HTTP/0.9 opens no stream of its own")

    def consume(self, stream_id: int, nbytes: int) -> None:
        self.credit += nbytes

    def on_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        assert dict(fields)[b":authority"] == b"server4"
        assert end_stream
        self.requests.append((stream_id, dict(fields)[b":path"]))

    def on_end(self, stream_id: int) -> None:
        self.ended.append(stream_id)

    def on_data(self, stream_id: int, data: bytes) -> None:
        raise AssertionError

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        raise AssertionError

    def on_cut_short(self, stream_id: int) -> bool:
        raise AssertionError

    def on_reset(self, stream_id: int, error_code: int) -> None: ...

    def on_stop_sending(self, stream_id: int, error_code: int) -> None: ...

    def on_goaway(self, stream_id: int) -> None: ...

    def on_priority_update(self, element_id: int, priority: Priority) -> None: ...

    def on_field_section_too_large(self, stream_id: int, fields: Fields) -> None: ...

    def on_stream_error(self, error: H3StreamError) -> None:
        self.errors.append(error.code)

    def on_exhausted(self, reason: str) -> None: ...


@given(
    st.sampled_from([b"GET /file\r\n", b"GET /file\n", b"GET /file"]),
    st.lists(st.integers(0, 11), max_size=4),
    st.booleans(),
)
def test_requests_arrive_in_pieces(line: bytes, cuts: list[int], fin_apart: bool) -> None:
    peer = Peer()
    edges = sorted({0, len(line), *(min(cut, len(line)) for cut in cuts)})
    pieces = [line[a:b] for a, b in itertools.pairwise(edges)]
    for piece in pieces[:-1]:
        peer.http09.stream_data(4, piece, False)
    peer.http09.stream_data(4, pieces[-1], not fin_apart)
    if fin_apart:
        peer.http09.stream_data(4, b"", True)
    assert peer.requests == [(4, b"/file")]
    assert peer.ended == [4]
    assert peer.credit == len(line)


def test_responses_are_bare_content() -> None:
    peer = Peer()
    peer.http09.send_headers(0, [(b":status", b"103")])
    peer.http09.send_headers(0, [(b":status", b"200"), (b"content-length", b"3")])
    peer.http09.send_data(0, b"abc")
    peer.http09.send_data(0, b"", end_stream=True)
    assert peer.sent == [(0, b"abc", False), (0, b"", True)]


def test_error_responses_reset_the_stream() -> None:
    peer = Peer()
    peer.http09.send_headers(0, [(b":status", b"404")])
    assert peer.reset == [0]
    assert peer.sent == []


@pytest.mark.parametrize("line", [b"POST /x\r\n", b"GET\r\n", b"GET x\r\n", b"GET /a b\r\n", b"\n"])
def test_malformed_requests_are_refused(line: bytes) -> None:
    peer = Peer()
    peer.http09.stream_data(0, line, True)
    assert peer.errors == [H3ErrorCode.MESSAGE_ERROR]


def test_a_line_beyond_the_limit_is_refused_once() -> None:
    peer = Peer()
    peer.http09.stream_data(0, b"x" * MAX_REQUEST_LINE, False)
    assert not peer.errors
    for _ in range(3):
        peer.http09.stream_data(0, b"x", False)
    assert peer.errors == [H3ErrorCode.MESSAGE_ERROR]
