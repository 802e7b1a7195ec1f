"""HTTP/1.1 to well-behaved origins: framing, interim responses, keep-alive, backpressure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quicedge.config import limits
from quicedge.http.errors import OriginFailure
from quicedge.upstream.h1 import H1Connection
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


async def test_head_has_host_first_and_no_framing_without_a_body() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        fields = ((b"accept", b"*/*"), (b"te", b"trailers"))
        answer = await fetch(group, request("GET", "/a?b", *fields))
    assert answer.events == ["response", "data", "end"]
    assert seen == [
        b"GET /a?b HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\nte: trailers\r\n"
        b"connection: te\r\n\r\n"
    ]


async def test_a_connection_is_reused() -> None:
    async with origin(says(OK)) as server, upstream(server) as group:
        for _ in range(3):
            answer = await fetch(group, request())
            assert (answer.status, bytes(answer.body)) == (200, b"ok")
        assert server.connections == 1
        (stats,) = group.stats().values()
        assert (stats["open"], stats["idle"], stats["active"]) == (1, 1, 0)
        assert (stats["requests"], stats["failures"]) == (3, 0)
        assert stats["bytes_received"] == 3 * len(OK)


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "origin")
    async with origin(says(OK), unix=path) as server, upstream(server) as group:
        stream, answer = send(group, request())
        await answer.over()
        assert (answer.status, stream.server) == (200, f"unix:{path}")


async def test_timings_tell_a_new_connection_from_a_reused_one() -> None:
    async with origin(says(OK)) as server, upstream(server) as group:
        first, answer = send(group, request())
        await answer.over()
        second, answer = send(group, request())
        await answer.over()
        assert first.connect_seconds > 0
        assert second.connect_seconds == 0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the request's bytes as they were on the wire, up to a blank chunk or length."""
    while True:
        head = await read_head(reader)
        if b"chunked" in head:
            body = await reader.readuntil(b"0\r\n")
            body += await reader.readuntil(b"\r\n")
            while not body.endswith(b"\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def test_a_declared_length_is_sent_and_kept() -> None:
    async with origin(_echo) as server, upstream(server) as group:
        answer = await fetch(group, request("PUT", body=True, length=6), b"abc", b"def")
        assert bytes(answer.body) == b"abcdef"
        answer = await fetch(group, request("POST"))
        assert bytes(answer.body) == b""
        assert server.connections == 1


async def test_an_unknown_length_is_chunked_with_trailers() -> None:
    async with origin(_echo) as server, upstream(server) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        stream.write(b"hello")
        stream.write(b"x" * 20)
        stream.end([(b"digest", b"1")])
        await recorder.over()
        assert bytes(recorder.body) == (b"19\r\nhello" + b"x" * 20 + b"\r\n0\r\ndigest: 1\r\n\r\n")
        answer = await fetch(group, request("POST", body=True), b"again")
        assert bytes(answer.body) == b"5\r\nagain\r\n0\r\n\r\n"
        assert server.connections == 1


async def test_head_and_body_leave_in_one_segment() -> None:
    sizes: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(len(await reader.read(65536)))
        writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        await fetch(group, request("POST", body=True, length=1000), b"x" * 500, b"y" * 500)
    assert sizes[0] > 1000


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", b"lo\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n", b"0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"\r\nhe", b"llo"),
    ],
)
async def test_framed_bodies_keep_the_connection(pieces: tuple[bytes, ...]) -> None:
    async with origin(says(*pieces)) as server, upstream(server) as group:
        for _ in range(2):
            answer = await fetch(group, request())
            assert bytes(answer.body) == b"hello"
            assert answer.events == ["response", "data", "end"]
        assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
    ],
)
async def test_a_body_up_to_the_close(head: bytes) -> None:
    async with origin(says(head, b"hello", keep=False)) as server, upstream(server) as group:
        for _ in range(2):
            answer = await fetch(group, request())
            assert (answer.events[-1], bytes(answer.body)) == ("end", b"hello")
        assert server.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_an_origin_that_will_close_gets_no_second_request(head: bytes) -> None:
    async with origin(says(head)) as server, upstream(server) as group:
        for _ in range(2):
            assert (await fetch(group, request("POST"))).status == 200
        assert server.connections == 2


async def test_http_1_0_with_keep_alive_is_kept() -> None:
    head = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"
    async with origin(says(head)) as server, upstream(server) as group:
        for _ in range(2):
            assert (await fetch(group, request())).status == 200
        assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("HEAD", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_responses_without_content_keep_the_connection(
    method: str, answer: bytes, split: bool
) -> None:
    cut = len(answer) - 3 if split else len(answer)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(answer[:cut])
            if split:
                await asyncio.sleep(0.01)
                writer.write(answer[cut:])

    async with origin(script) as server, upstream(server) as group:
        for _ in range(3):
            recorder = await fetch(group, request(method))
            assert recorder.events == ["response", "end"]
        assert server.connections == 1


async def test_a_get_after_a_head_on_the_same_connection_has_its_body() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"ok")

    async with origin(script) as server, upstream(server) as group:
        for method, body in (("HEAD", b""), ("GET", b"ok"), ("HEAD", b""), ("GET", b"ok")):
            assert bytes((await fetch(group, request(method))).body) == body
        assert server.connections == 1


async def test_interim_responses_are_relayed() -> None:
    pieces = (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        OK,
    )
    for method in ("GET", "HEAD"):
        script = says(*(pieces if method == "GET" else (*pieces[:2], OK[:-2])))
        async with origin(script) as server, upstream(server) as group:
            for _ in range(2):
                answer = await fetch(group, request(method))
                assert [response.status for response in answer.interim] == [100, 103]
                assert answer.interim[1].fields == [(b"link", b"</a>")]
                assert answer.events[-1] == "end"
            assert server.connections == 1


async def test_trailers_of_a_response() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
        b"Digest: a \r\nContent-Type: b\r\n\r\n"
    )
    async with origin(says(answer)) as server, upstream(server) as group:
        recorder = await fetch(group, request())
        assert recorder.trailers == [(b"digest", b"a")]
        assert recorder.head is not None
        assert recorder.head.fields == [(b"transfer-encoding", b"chunked")]


async def test_a_body_behind_expect_waits_for_100() -> None:
    order: list[str] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"expect: 100-continue" in head
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        order.append("nothing before 100")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(4) == b"body"
        writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        expect = (b"expect", b"100-continue")
        answer = await fetch(group, request("PUT", "/", expect, body=True, length=4), b"body")
        assert order == ["nothing before 100"]
        assert [response.status for response in answer.interim] == [100]
        assert (answer.status, answer.events[-1]) == (200, "end")


async def test_a_body_behind_expect_is_not_sent_after_a_final_response() -> None:
    rest: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n")
        rest.append(await reader.read())

    async with origin(script) as server, upstream(server) as group:
        expect = (b"expect", b"100-continue")
        answer = await fetch(group, request("PUT", "/", expect, body=True, length=4), b"body")
        assert answer.status == 417
        assert (await fetch(group, request())).status == 417
        assert server.connections == 2
    assert rest[0] == b""


async def test_a_body_behind_expect_is_sent_when_the_origin_keeps_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_CONTINUE_TIMEOUT", 0.02)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        assert await reader.readexactly(4) == b"body"
        writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        expect = (b"expect", b"100-continue")
        answer = await fetch(group, request("PUT", "/", expect, body=True, length=4), b"body")
        assert answer.events[-1] == "end"


async def test_an_early_refusal_is_relayed_and_the_connection_closed() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await reader.read()

    async with origin(script) as server, upstream(server) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True, length=10**9), recorder)
        stream.write(b"x" * 1000)
        await recorder.over()
        stream.write(b"x" * 1000)
        stream.end()
        assert (recorder.status, bytes(recorder.body)) == (413, b"big")
        assert recorder.events[-1] == "end"
        await eventually(lambda: not group.stats()[stream.server]["open"])


async def test_an_origin_may_answer_while_it_reads() -> None:
    """Status 200 before the end of the request: both directions go on."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        for _ in range(4):
            writer.write(await reader.readexactly(1))

    async with origin(script) as server, upstream(server) as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True, length=4), recorder)
        for count, piece in enumerate((b"a", b"b", b"c", b"d"), 1):
            stream.write(piece)
            await recorder.until(lambda count=count: len(recorder.body) == count)  # type: ignore[misc]
        stream.end()
        assert (await recorder.over()).events[-1] == "end"


SIZE = 3_000_000
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE + bytes(SIZE)
"""A response that takes many reads."""


async def test_content_of_known_length_passes_the_parser_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would copy each piece; what the first read holds with the head is all that it sees."""
    parsed: list[int] = []
    on_body = H1Connection.on_body

    def counting(connection: H1Connection, body: bytes) -> None:
        parsed.append(len(body))
        on_body(connection, body)

    monkeypatch.setattr(H1Connection, "on_body", counting)
    async with origin(says(LONG)) as server, upstream(server) as group:
        for _ in range(2):
            answer = await fetch(group, request())
            assert bytes(answer.body) == bytes(SIZE)
            assert answer.events.count("end") == 1
        assert server.connections == 1
    assert sum(parsed) < SIZE


async def test_bytes_behind_content_of_known_length_end_the_connection() -> None:
    async with origin(says(LONG + b"HTTP")) as server, upstream(server) as group:
        for connections in (1, 2):
            answer = await fetch(group, request())
            assert bytes(answer.body) == bytes(SIZE)
            await eventually(lambda: next(iter(group.stats().values()))["open"] == 0)
            assert server.connections == connections


async def test_content_of_known_length_that_breaks_off_fails() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(LONG[:-1])
        await writer.drain()
        writer.close()

    async with origin(script) as server, upstream(server) as group:
        answer = await fetch(group, request())
    assert len(answer.body) == SIZE - 1
    assert answer.kind == OriginFailure.RESET


async def test_a_slow_client_stops_the_origin() -> None:
    total = 32 * 1024 * 1024
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total // 65536):
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async with origin(script) as server, upstream(server, idle_timeout=0.05) as group:
        stream, recorder = send(group, request())
        await recorder.until(lambda: bool(recorder.body))
        stream.pause()
        held = -1
        while held != sent:  # until the kernel's buffers are full
            held = sent
            await asyncio.sleep(0.1)
        assert held < total
        assert len(recorder.body) < 4 * 1024 * 1024
        assert recorder.error is None  # idle_timeout does not run while we do not read
        stream.resume()
        await recorder.over()
        assert (recorder.events[-1], len(recorder.body)) == ("end", total)


async def test_a_slow_origin_holds_back_the_request() -> None:
    read_on = asyncio.Event()
    piece = bytes(65536)
    count = 400

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await read_on.wait()
        for _ in range(count):
            await reader.readexactly(len(piece))
        writer.write(OK)

    async with origin(script) as server, upstream(server) as group:
        recorder = Recorder()
        stream = group.open(request("PUT", body=True, length=count * len(piece)), recorder)
        written = 0
        while not recorder.request_paused:
            stream.write(piece)
            written += 1
            await asyncio.sleep(0)
        assert written < count
        read_on.set()
        while written < count:
            await recorder.until(lambda: not recorder.request_paused)
            stream.write(piece)
            written += 1
            await asyncio.sleep(0)
        stream.end()
        await recorder.over()
        assert recorder.status == 200
        assert "resume" in recorder.events


async def test_an_aborted_exchange_closes_its_connection_and_reports_nothing() -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        try:
            await reader.read()
        finally:
            closed.set()

    async with origin(script) as server, upstream(server) as group:
        stream, recorder = send(group, request())
        await eventually(lambda: server.connections == 1)
        stream.abort()
        await asyncio.wait_for(closed.wait(), 5)
        assert recorder.events == []
        stream.abort()
        stream.write(b"late")
        stream.end()
        stream.pause()
        stream.resume()


async def test_abort_from_within_data_stops_at_once() -> None:
    class Impatient(Recorder):
        def data(self, data: bytes) -> None:
            super().data(data)
            stream.abort()

    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    async with origin(says(answer)) as server, upstream(server) as group:
        recorder = Impatient()
        stream = group.open(request(), recorder)
        await recorder.until(lambda: bool(recorder.body))
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)
        assert (bytes(recorder.body), recorder.events) == (b"a", ["response", "data"])
