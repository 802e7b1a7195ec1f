"""Whitespace before a colon in an origin's head (RFC 9112 section 5.1)."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from quicedge.upstream.h1_head import HeadFilter
from tests.support.origins import fetch, origin, request, says, upstream

SPACED = (
    b"HTTP/1.1 103 Hints : here\r\nLink : </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-Frame : DENY\r\nA\t :b : c\r\nContent-Length : 5\r\n\r\n"
)
MENDED = (
    b"HTTP/1.1 103 Hints : here\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-Frame: DENY\r\nA:b : c\r\nContent-Length: 5\r\n\r\n"
)


async def test_the_whitespace_is_removed_and_the_operator_told_once() -> None:
    async with origin(says(SPACED + b"a : b")) as server, upstream(server) as group:
        with capture_logs() as lines:
            for _ in range(3):
                answer = await fetch(group, request())
                assert [response.fields for response in answer.interim] == [[(b"link", b"</a>")]]
                assert answer.head is not None
                assert answer.head.fields[:2] == [(b"x-frame", b"DENY"), (b"a", b"b : c")]
                assert bytes(answer.body) == b"a : b", "content is left as it is"
    (line,) = [line for line in lines if line["event"] == "origin sends malformed responses"]
    assert line["log_level"] == "warning"
    assert "colon" in line["problem"]


async def test_an_answer_to_head_is_mended_too() -> None:
    async with origin(says(SPACED)) as server, upstream(server) as group:
        answer = await fetch(group, request("HEAD"))
        assert answer.head is not None
        assert (b"content-length", b"5") in answer.head.fields


async def test_what_is_no_status_line_is_refused_before_its_end() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x15\x03\x01\x00\x02\x02")  # an alert: it speaks TLS
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        assert (await fetch(group, request())).kind == "protocol"


@given(st.lists(st.integers(1, len(SPACED)), max_size=20))
def test_where_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    heads, got = HeadFilter(), b""
    edges = sorted({0, len(SPACED), *cuts})
    for first, last in itertools.pairwise(edges):
        left = SPACED[first:last]
        while left:
            lines, left = heads.take(left)
            got += lines
    assert got == MENDED
    assert heads.repaired


def test_no_more_than_a_name_is_kept_back() -> None:
    heads = HeadFilter()
    assert heads.take(b"HTTP/1.1 200 OK\r\n") == (b"HTTP/1.1 200 OK\r\n", b"")
    assert heads.take(b"X-Frame ") == (b"", b"")
    assert heads.take(b" : a") == (b"X-Frame: a", b"")
    assert heads.take(b" : b") == (b" : b", b"")
    assert heads.take(b"\r\n" + b"y" * 300) == (b"\r\n", b"y" * 300)
    assert heads.take(b"y" * 300) == (b"y" * 300, b"")


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (b"HTTP/1.1 200 OK\r\na: b : c\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\na: b\r\n\r\nx : y", True),
        (b"HTTP/1.1 200 OK\r\na: b\r\n", False),
        (b"HTTP/1.1 103 Hints\r\n\r\n", False),
    ],
)
def test_whole_heads_with_nothing_to_mend_take_the_short_way(data: bytes, plain: bool) -> None:
    assert HeadFilter().is_plain(data) is plain
