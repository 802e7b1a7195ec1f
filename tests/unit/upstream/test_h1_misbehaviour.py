"""Origins that violate HTTP/1.1, and requests that violate their own framing."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from quicedge.config import limits
from tests.support.origins import (
    OK,
    Recorder,
    eventually,
    fetch,
    origin,
    read_head,
    request,
    says,
    send,
    upstream,
)

HEAD = b"HTTP/1.1 200 OK\r\n"

MALFORMED = {
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "html without a head": b"<html></html>",
    "lone LF after the status": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "lone LF after a field": HEAD + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare CR in a value": HEAD + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "both framings": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "both framings, other order": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "empty length": HEAD + b"Content-Length:\r\n\r\n",
    "huge length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "unknown coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": HEAD + b"A: \0\r\nContent-Length: 0\r\n\r\n",
    "control in a value": HEAD + b"A: \x01\r\nContent-Length: 0\r\n\r\n",
    "space within a name": HEAD + b"A b: c\r\nContent-Length: 0\r\n\r\n",
    "space before the first colon": HEAD + b" : b\r\nContent-Length: 0\r\n\r\n",
    "empty name": HEAD + b": b\r\nContent-Length: 0\r\n\r\n",
    "no token for a name": HEAD + b"a(b: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "a flood of interim responses": b"HTTP/1.1 103 Hm\r\n\r\n" * 100 + OK,
    "too many fields": HEAD + b"a: b\r\n" * 600 + b"\r\n",
    "a field section too large": HEAD + (b"a: " + b"b" * 8000 + b"\r\n") * 40 + b"\r\n",
    "an endless field": HEAD + b"a: " + b"b" * 600_000,
    "an endless reason": b"HTTP/1.1 200 " + b"b" * 600_000,
    "an endless chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"b" * 600_000,
    "an endless trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\na: " + b"b" * 600_000,
    "chunk size is no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "lone LF after a chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a bad trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\na b: c\r\n\r\n",
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_answers_fail_and_close(answer: bytes) -> None:
    async with origin(says(answer)) as server, upstream(server) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert recorder.kind == "protocol"
        await eventually(lambda: not group.stats()[stream.server]["open"])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        HEAD,
        HEAD + b"content-length: 5\r\n\r\n",
        HEAD + b"content-length: 5\r\n\r\nhell",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhell",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n",
    ],
)
async def test_truncated_answers_are_resets(answer: bytes) -> None:
    async with origin(says(answer, keep=False)) as server, upstream(server) as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "reset"
        assert server.connections == 1  # a fresh connection: no second try


async def test_a_reset_in_a_body_up_to_the_close_is_no_end() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(HEAD + b"\r\nsome")
        await go.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with origin(script) as server, upstream(server) as group:
        _, recorder = send(group, request())
        await recorder.until(lambda: bool(recorder.body))
        go.set()
        await recorder.over()
        assert recorder.kind == "reset"


@pytest.mark.parametrize(
    "excess",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"x", b"HTT"],
)
async def test_bytes_after_a_response_are_never_an_answer(excess: bytes) -> None:
    async with origin(says(OK + excess)) as server, upstream(server) as group:
        for _ in range(2):
            recorder = await fetch(group, request())
            assert bytes(recorder.body) == b"ok"
        assert server.connections == 2


async def test_content_after_a_response_to_head_is_never_an_answer() -> None:
    script = says(HEAD + b"content-length: 2\r\n\r\nok")
    async with origin(script) as server, upstream(server) as group:
        for _ in range(2):
            recorder = await fetch(group, request("HEAD"))
            assert recorder.events == ["response", "end"]
        assert server.connections == 2


async def test_an_idle_connection_that_speaks_is_closed() -> None:
    speak = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await speak.wait()
        writer.write(OK)
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        speak.set()
        await eventually(lambda: not group.stats()[stream.server]["open"])


@pytest.mark.parametrize("body", [(b"abcd", b"e"), (b"abc",), ()])
async def test_a_body_unlike_its_content_length_closes_the_origin_connection(
    body: tuple[bytes, ...],
) -> None:
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_head(reader)
            got.append(await reader.read())
        except (ConnectionError, asyncio.IncompleteReadError):
            got.append(b"")

    async with origin(script) as server, upstream(server) as group:
        recorder = await fetch(group, request("POST", body=True, length=4), *body)
        assert recorder.kind == "request"
        await eventually(lambda: bool(got))
    assert got[0] in (b"", b"abc", b"abcd")  # never a fifth byte


async def test_an_aborted_chunked_body_has_no_last_chunk() -> None:
    got = bytearray()
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        try:
            while data := await reader.read(100):
                got.extend(data)
        finally:
            closed.set()

    async with origin(script) as server, upstream(server) as group:
        stream = group.open(request("POST", body=True), Recorder())
        stream.write(b"hello")
        await eventually(lambda: bool(got))
        stream.abort()
        await eventually(closed.is_set)
    assert bytes(got) == b"5\r\nhello\r\n"


@pytest.mark.parametrize(
    "message",
    [
        request("GET", "/ HTTP/1.1\r\nx: y"),
        request("GET", "/a b"),
        request("GET /x"),
        request("GET", "/", (b"a", b"b\r\nc: d")),
        request("GET", "/", (b"a\n", b"b")),
        request("GET", "/", (b"a", b"\0")),
        request("GET", "/", length=5),
    ],
)
async def test_what_http_1_1_cannot_carry_is_not_sent(message: object) -> None:
    async with origin(says(OK)) as server, upstream(server) as group:
        recorder = await fetch(group, message)  # type: ignore[arg-type]
        assert recorder.kind == "request"
        (stats,) = group.stats().values()
        assert stats["bytes_sent"] == 0


async def test_trailers_cannot_smuggle() -> None:
    async with origin(says(OK)) as server, upstream(server) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        stream.end([(b"a", b"b\r\n\r\nGET / HTTP/1.1")])
        await recorder.over()
        assert recorder.kind == "request"


async def test_fields_that_frame_are_ours_alone() -> None:
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(OK)

    forged = (
        (b"content-length", b"50"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"other"),
        (b"connection", b"upgrade"),
    )
    async with origin(script) as server, upstream(server) as group:
        assert (await fetch(group, request("GET", "/", *forged))).status == 200
    assert heads == [b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n"]


async def test_a_handler_that_raises_costs_its_exchange_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Recorder):
        def response(self, response: object) -> None:
            raise RuntimeError("a bug of ours")

    seen: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    async with origin(says(OK)) as server, upstream(server) as group:
        broken = Broken()
        group.open(request(), broken)
        await broken.over()
        assert broken.kind == "reset"
        assert (await fetch(group, request())).status == 200
    loop.set_exception_handler(before)
    assert [str(context["exception"]) for context in seen] == ["a bug of ours"]


async def test_interim_responses_up_to_the_burst_pass() -> None:
    count = limits.UPSTREAM_INTERIM_BURST
    script = says(b"HTTP/1.1 103 Hm\r\n\r\n" * count + OK)
    async with origin(script) as server, upstream(server) as group:
        recorder = await fetch(group, request())
        assert (len(recorder.interim), recorder.status) == (count, 200)
