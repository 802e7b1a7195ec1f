"""The reader of HTTP/1.1 requests: what it accepts, and that only the bytes count."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.limits import H1_REMEMBERED_BLOCKS, H1_REMEMBERED_LINES
from quicedge.http.h1 import RequestReader
from quicedge.http.h1_head import HeadReader, RequestHead
from quicedge.http.message import Fields
from quicedge.http.validation import MessageError, MessageLimits
from tests.support.h1client import chunked, get, post
from tests.support.smuggling import SHAPES, SMUGGLED

LIMITS = MessageLimits()


class Reading:
    """Reads everything as if each request were answered at once."""

    def __init__(self, heads: HeadReader | None = None) -> None:
        self.requests: list[tuple[RequestHead, bytearray]] = []
        self.trailers: list[Fields] = []
        self.complete = 0
        self.error: MessageError | None = None
        self.reader = RequestReader(self, heads or HeadReader(LIMITS), b"default.test")

    def on_request(self, head: RequestHead) -> None:
        self.requests.append((head, bytearray()))
        if head.request.ended:
            self.complete += 1

    def on_data(self, data: bytes) -> None:
        assert data
        self.requests[-1][1].extend(data)

    def on_end(self, trailers: Fields) -> None:
        self.complete += 1
        self.trailers.append(trailers)

    def on_small_chunks(self, count: int) -> None: ...

    def on_ahead(self, size: int) -> None: ...

    def on_malformed(self, error: MessageError, head: bytes | None) -> None:
        assert self.error is None, "told twice"
        self.error = error

    def read(self, *pieces: bytes) -> Reading:
        for piece in pieces:
            self.reader.receive(piece)
            while self.reader.proceed():
                self.reader.read_ahead()
        return self

    @property
    def result(self) -> Any:
        """Everything that was understood, but for the content of a malformed request."""
        return (
            [head for head, _ in self.requests],
            [bytes(content) for _, content in self.requests[: self.complete]],
            self.trailers,
            self.complete,
            self.error is None,
        )


@pytest.mark.parametrize("name", SHAPES)
def test_no_shape_of_smuggling_has_two_readings(name: str) -> None:
    shape = SHAPES[name]
    reading = Reading().read(shape.data)
    targets = [head.request.path for head, _ in reading.requests]
    if shape.status == 200 or name == "path too long":
        assert reading.error is None
        assert targets == [b"/first", b"/smuggled"] if shape.then else len(targets) == 1
        assert bytes(reading.requests[0][1]) == shape.content
    else:
        assert reading.error is not None
        assert reading.error.status_hint == shape.status
        assert b"/smuggled" not in targets
        assert reading.complete == 0


STREAMS = [
    get("/a", "X-A: 1") + post(b"content") + get("/b"),
    chunked(b"hello", b"x" * 5000, trailers="X-Sum: 1\r\n") + get("/b", version="1.0"),
    b"\r\n" + get("https://b.test?x", "TE: trailers", "Connection: TE") + b"\r\n" + get("/c"),
    *(shape.data[:9000] for shape in SHAPES.values()),
]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 9000), max_size=12))
def test_how_bytes_are_split_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole = Reading().read(data)
    at = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    split = Reading().read(*(data[start:end] for start, end in itertools.pairwise(at)))
    assert split.result == whole.result


@pytest.mark.parametrize("data", STREAMS[:12], ids=range(12))
def test_octet_by_octet_it_reads_the_same(data: bytes) -> None:
    whole = Reading().read(data)
    assert Reading().read(*(bytes((octet,)) for octet in data)).result == whole.result


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([get("/first"), post(b"content"), chunked(b"hello", trailers="a: b\r\n")]),
    st.data(),
)
def test_a_mutated_request_is_rejected_or_has_the_bounds_of_one_message(
    request: bytes, data: st.DataObject
) -> None:
    """Whatever is inserted: the rest of the stream is read as a request only at a place where a
    message ends by the grammar, which a second, naive reader finds as well."""
    at = data.draw(st.integers(0, len(request)))
    inserted = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from(OBFUSCATIONS)))
    dropped = data.draw(st.integers(0, 2))
    mutated = request[:at] + inserted + request[at + dropped :] + SMUGGLED
    reading = Reading().read(mutated)
    if reading.complete:
        assert naive_end(mutated) is not None
        rest = mutated[naive_end(mutated) :]
        again = Reading().read(rest)
        assert reading.complete == 1 + again.complete


OBFUSCATIONS = [
    b"\r\n", b"\n", b"\r", b"\r\n ", b" ", b"\t", b"\x00", b"\x0b", b":", b"\r\n\r\n", b"0\r\n\r\n",
    b"\r\nTransfer-Encoding: chunked", b"\r\nContent-Length: 5", b"5\r\nhello\r\n", b";x=y", b"0x",
]  # fmt: skip


def naive_end(data: bytes) -> int | None:
    """Where the first message of a stream ends, by a reading of the RFC without any of our code."""
    start = 2 if data.startswith(b"\r\n") else 0
    head, blank, _ = data[start:].partition(b"\r\n\r\n")
    if not blank:
        return None
    lines = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    fields = {line[0].lower(): line[1].strip(b" \t") for line in lines if len(line) == 2}
    at = start + len(head) + 4
    if b"transfer-encoding" not in fields:
        return at + int(fields.get(b"content-length", b"0"))
    while True:
        size_line, _, _ = data[at:].partition(b"\r\n")
        size = int(size_line.partition(b";")[0], 16)
        at += len(size_line) + 2 + size
        if not size:
            break
        at += 2
    if data[at : at + 2] == b"\r\n":
        return at + 2
    return data.index(b"\r\n\r\n", at) + 4


def test_the_default_authority_is_for_http_1_0_without_host() -> None:
    reading = Reading().read(b"GET / HTTP/1.0\r\n\r\n")
    assert reading.requests[0][0].request.authority == b"default.test"


@pytest.mark.parametrize(
    ("line", "authority", "path"),
    [
        (b"GET https://b.test/x?y HTTP/1.1", b"b.test", b"/x?y"),
        (b"GET HTTPS://b.test:8443 HTTP/1.1", b"b.test:8443", b"/"),
        (b"GET https://b.test?y HTTP/1.1", b"b.test", b"/?y"),
        (b"OPTIONS https://b.test HTTP/1.1", b"b.test", b"*"),
        (b"OPTIONS * HTTP/1.1", b"localhost", b"*"),
    ],
)
def test_forms_of_the_request_target(line: bytes, authority: bytes, path: bytes) -> None:
    reading = Reading().read(line + b"\r\nHost: localhost\r\n\r\n")
    request = reading.requests[0][0].request
    assert (request.authority, request.path) == (authority, path)


def test_fields_of_the_connection_are_not_part_of_the_request() -> None:
    reading = Reading().read(
        get(
            "/", "Connection: X-Hop, TE, Cookie", "X-Hop: 1", "Keep-Alive: 5", "X-End: 2",
            "TE: deflate, trailers;q=0.5", "Proxy-Connection: close", "Cookie: a=b", "Upgrade: x",
        )
    )  # fmt: skip
    head = reading.requests[0][0]
    assert head.request.fields == [(b"x-end", b"2"), (b"te", b"trailers")]
    assert head.takes_trailers
    assert head.persistent
    assert head.upgrade == b"", "Connection does not name it"


def test_an_expectation_in_http_1_0_is_ignored() -> None:
    line = ("Expect: 100-continue", "Content-Length: 1")
    for version, kept in (("1.1", True), ("1.0", False)):
        reading = Reading().read(get("/", *line, version=version))
        fields = reading.requests[0][0].request.fields
        assert (fields == [(b"expect", b"100-continue")]) is kept


def test_what_is_remembered_is_bounded() -> None:
    heads = HeadReader(LIMITS)
    reading = Reading(heads)
    for number in range(3 * H1_REMEMBERED_BLOCKS):
        reading.read(get(f"/{number}", f"X: {number}"))
    for number in range(2 * H1_REMEMBERED_LINES):
        reading.read(get(f"/{number}"))
    assert reading.error is None
    assert 0 < heads.remembered[0] <= H1_REMEMBERED_LINES
    assert 0 < heads.remembered[1] <= H1_REMEMBERED_BLOCKS


def test_what_is_remembered_is_read_the_same_again() -> None:
    for data in STREAMS:
        heads = HeadReader(LIMITS)
        first = Reading(heads).read(data)
        assert Reading(heads).read(data).result == first.result


def test_requests_that_share_remembered_fields_do_not_share_state() -> None:
    reading = Reading().read(post(b"content"), post(b"content"))
    (first, _), (second, _) = reading.requests
    first.request.ended = True
    assert not second.request.ended
