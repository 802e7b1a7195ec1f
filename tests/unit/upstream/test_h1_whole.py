"""What is read at a glance is what the parser would have read; all else is left to it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quicedge.config.limits import (
    UPSTREAM_HEADS_REMEMBERED,
    UPSTREAM_LINES_REMEMBERED,
    UPSTREAM_MAX_FIELDS,
    UPSTREAM_MAX_HEAD,
    UPSTREAM_REMEMBERED_HEAD,
    UPSTREAM_REMEMBERED_LINE,
)
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Response
from quicedge.upstream import h1, h1_whole
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.h1_whole import read_whole
from tests.support.origins import request
from tests.unit.upstream.test_parts import _Owner, _Transport
from tests.unit.upstream.test_whole_responses import Calls

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain \r\ncontent-length:5\r\n\r\nhello"

DOUBTFUL = {
    "another version": PLAIN.replace(b"1.1", b"1.0"),
    "an interim response": PLAIN.replace(b"200", b"103"),
    "a switch of protocols": PLAIN.replace(b"200", b"101"),
    "a status of no class": PLAIN.replace(b"200", b"600"),
    "a status that is none": PLAIN.replace(b"200", b"2x0"),
    "a status of four digits": PLAIN.replace(b"200", b"2000"),
    "no reason phrase": PLAIN.replace(b" OK", b""),
    "a status without content": PLAIN.replace(b"200", b"304"),
    "content that is missing": PLAIN[:-1],
    "content beyond its length": PLAIN + b"!",
    "no length": PLAIN.replace(b"content-length:5\r\n", b""),
    "two lengths": PLAIN.replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"),
    "a length that is none": PLAIN.replace(b":5", b":+5"),
    "chunks": PLAIN.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n"),
    "a close": PLAIN.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
    "a timeout": PLAIN.replace(b"\r\n\r\n", b"\r\nkeep-alive: timeout=5\r\n\r\n"),
    "an upgrade": PLAIN.replace(b"\r\n\r\n", b"\r\nupgrade: h2c\r\n\r\n"),
    "a line feed alone": PLAIN.replace(b"OK\r\n", b"OK\n"),
    "a carriage return alone": PLAIN.replace(b"text/plain", b"text\r/plain"),
    "a line without a colon": PLAIN.replace(b"\r\n\r\n", b"\r\nabc\r\n\r\n"),
    "a folded line": PLAIN.replace(b"\r\n\r\n", b"\r\n x: y\r\n\r\n"),
    "whitespace before a colon": PLAIN.replace(b"Type:", b"Type :"),
    "an empty name": PLAIN.replace(b"\r\n\r\n", b"\r\n: y\r\n\r\n"),
    "an octet that no value has": PLAIN.replace(b"text/", b"text\x01"),
    "a head that is not complete": PLAIN[:40],
    "a head that is too large": PLAIN.replace(b"OK", b"O" * (UPSTREAM_MAX_HEAD + 1)),
    "too many fields": PLAIN.replace(
        b"\r\n\r\n", b"\r\n" + b"a: b\r\n" * UPSTREAM_MAX_FIELDS + b"\r\n"
    ),
}


def test_a_plain_response_is_read_at_a_glance() -> None:
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    assert read_whole(PLAIN) == (Response(200, fields, b"1.1"), b"hello")
    usual = PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: Keep-Alive\r\n\r\n")
    assert read_whole(usual) is not None


@pytest.mark.parametrize("data", DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_what_is_doubtful_is_left_to_the_parser(data: bytes) -> None:
    assert read_whole(data) is None


def test_lines_are_remembered_within_bounds_and_read_the_same_again() -> None:
    for _ in range(2):
        for number in range(UPSTREAM_LINES_REMEMBERED + 10):
            line = b"X-Number: %d " % number
            found = read_whole(PLAIN.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % line))
            assert found is not None
            assert found[0].fields[-1] == (b"x-number", b"%d" % number)
    assert 0 < len(h1_whole._lines) <= UPSTREAM_LINES_REMEMBERED
    for kept in (b"x: " + b"y" * UPSTREAM_REMEMBERED_LINE, b"set-cookie: a=secret"):
        assert read_whole(PLAIN.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % kept)) is not None
        assert kept not in h1_whole._lines
    malformed = PLAIN.replace(b"\r\n\r\n", b"\r\nx: a\x01b\r\n\r\n")
    assert read_whole(malformed) is read_whole(malformed) is None


def test_heads_are_remembered_within_bounds_and_nobody_shares_their_fields() -> None:
    for number in range(UPSTREAM_HEADS_REMEMBERED + 10):
        head = PLAIN.replace(b"\r\n\r\n", b"\r\nETag: %d\r\n\r\n" % number)
        first = read_whole(head)
        assert first is not None
        fields = first[0].fields
        fields.append((b"via", b"an edge"))
        again = read_whole(head[:-5] + b"world")
        assert again == (Response(200, fields[:-1], b"1.1"), b"world")
        assert read_whole(head[:-1]) is read_whole(head + b"!") is None
    assert 0 < len(h1_whole._heads) <= UPSTREAM_HEADS_REMEMBERED
    for kept in (b"x: " + b"y" * UPSTREAM_REMEMBERED_HEAD, b"set-cookie: a=secret"):
        head = PLAIN.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % kept)
        assert read_whole(head) is not None
        assert not any(kept in known for known in h1_whole._heads)


class Whole(Calls):
    """Keeps what it got in full."""

    def response(self, response: Response) -> None:
        self.calls.append(("response", response))

    def whole(self, response: Response, data: bytes) -> None:
        self.calls.append(("whole", response, data))


def received(data: bytes, *, at_a_glance: bool) -> tuple[list[tuple[object, ...]], bool]:
    """What a connection makes of a read, and whether it takes another request then."""

    async def receive() -> tuple[list[tuple[object, ...]], bool]:
        owner, receiver = _Owner(), Whole()
        connection = H1Connection(owner, UpstreamConfig(servers=[]), asyncio.get_running_loop())
        connection.connection_made(_Transport())
        owner.is_available = False
        connection.start(request("GET"), receiver)  # type: ignore[arg-type]
        connection.data_received(data)
        connection.connection_lost(None)
        return receiver.calls, owner.is_available

    with pytest.MonkeyPatch.context() as patch:
        if not at_a_glance:
            patch.setattr(h1, "read_whole", lambda data: None)
        return asyncio.run(receive())


_LINES = st.sampled_from([
    b"content-length: 5", b"Content-Length: 05", b"content-length: 4", b"content-length:5 ",
    b"connection: keep-alive", b"connection: close", b"Connection: Keep-Alive, x", b"x: y",
    b"x:", b"x:\t y\t", b"set-cookie: a=b", b"X-\xff: y", b"x: \xff", b"x: a\0b", b"x y: z",
    b"trailer: x", b"transfer-encoding: chunked", b"keep-alive: timeout=3", b": y", b" z: w", b"",
])  # fmt: skip
_FIRST = st.sampled_from([
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 200", b"HTTP/1.1 200 a\tb\xff",
    b"HTTP/1.1 204 -", b"HTTP/1.0 200 OK", b"HTTP/1.1 099 -", b"HTTP/1.1 599 -",
    b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
])  # fmt: skip


@given(
    first=_FIRST,
    lines=st.lists(_LINES, max_size=4),
    content=st.sampled_from([b"", b"hell", b"hello", b"hello!", b"\r\n\r\nx"]),
    ending=st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
)
@example(b"HTTP/1.1 200 OK", [b"content-length: 5"], b"hello", b"\r\n")
def test_the_parser_reads_the_same(
    first: bytes, lines: list[bytes], content: bytes, ending: bytes
) -> None:
    data = ending.join((first, *lines, b"", b"")) + content
    assert received(data, at_a_glance=True) == received(data, at_a_glance=False)


@given(st.integers(0, len(PLAIN) - 1), st.binary(max_size=2))
def test_the_parser_reads_the_same_whatever_is_changed(at: int, octets: bytes) -> None:
    data = PLAIN[:at] + octets + PLAIN[at + 1 :]
    assert received(data, at_a_glance=True) == received(data, at_a_glance=False)
