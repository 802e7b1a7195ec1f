"""HTTP/2 to origins: requests, flow control, GOAWAY, timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame

from quicedge.config import limits
from tests.support.origins import (
    H2Peer,
    Recorder,
    eventually,
    fetch,
    h2_says,
    origin,
    request,
    says,
    send,
    upstream,
)

MAX_STREAMS, WINDOW = 3, 4  # SETTINGS identifiers (RFC 9113 section 6.5.2)


async def test_requests_share_a_connection() -> None:
    async with origin(h2_says()) as server, upstream(server, protocol="h2") as group:
        sent = [send(group, request(path=f"/{n}")) for n in range(20)]
        for _, recorder in sent:
            await recorder.over()
            assert (recorder.status, bytes(recorder.body)) == (200, b"hello")
            assert recorder.events == ["response", "data", "end"]
        stream, recorder = send(group, request())
        await recorder.over()
        assert server.connections == 1
        assert stream.connect_seconds == 0
        stats = group.stats()[stream.server]
        assert (stats["open"], stats["idle"], stats["active"]) == (1, 1, 0)


async def test_the_head_on_the_wire() -> None:
    heads: list[object] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        event = await peer.wait(RequestReceived)
        heads.append(event.headers)
        await peer.wait(StreamEnded)
        assert event.stream_id is not None
        await peer.respond(event.stream_id)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        fields = ((b"te", b"trailers"), (b"accept", b"*/*"))
        await fetch(group, request("PUT", "/a?b", *fields, body=True, length=2), b"ok")
    assert heads == [
        [
            (b":method", b"PUT"),
            (b":scheme", b"http"),
            (b":authority", b"example.com"),
            (b":path", b"/a?b"),
            (b"te", b"trailers"),
            (b"accept", b"*/*"),
            (b"content-length", b"2"),
        ]
    ]


async def test_body_and_trailers_both_ways() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        data = await peer.wait(DataReceived)
        trailers = await peer.wait(TrailersReceived)
        peer.codec.send_headers(stream_id, [(b":status", b"103"), (b"link", b"</a>")])
        peer.codec.send_headers(stream_id, [(b":status", b"200")])
        peer.codec.send_data(stream_id, data.data or b"")
        answer = [*(trailers.headers or []), (b"content-type", b"dropped")]
        peer.codec.send_headers(stream_id, answer, end_stream=True)
        await peer.flush()
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        stream.write(b"hello")
        stream.end([(b"digest", b"1")])
        await recorder.over()
        assert recorder.events == ["informational", "response", "data", "end"]
        assert recorder.interim[0].fields == [(b"link", b"</a>")]
        assert bytes(recorder.body) == b"hello"
        assert recorder.trailers == [(b"digest", b"1")]


async def test_both_directions_at_once() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        peer.codec.send_headers(stream_id, [(b":status", b"404")])
        for _ in range(4):
            data = await peer.wait(DataReceived)
            peer.codec.send_data(stream_id, data.data or b"")
        await peer.wait(StreamEnded)
        peer.codec.end_stream(stream_id)
        await peer.flush()
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        for count in range(1, 5):
            stream.write(b"x")
            await recorder.until(lambda count=count: len(recorder.body) == count)  # type: ignore[misc]
        stream.end()
        assert (await recorder.over()).events[-1] == "end"


async def test_a_body_behind_expect_waits_for_100() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.wait(DataReceived), 0.05)
        peer.codec.send_headers(stream_id, [(b":status", b"100")])
        await peer.wait(DataReceived)
        await peer.respond(stream_id)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        expect = (b"expect", b"100-continue")
        recorder = await fetch(group, request("PUT", "/", expect, body=True), b"body")
        assert [response.status for response in recorder.interim] == [100]
        assert recorder.events[-1] == "end"


async def test_an_early_answer_ends_the_request() -> None:
    codes: list[object] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.respond(await peer.request(), b"big", status=b"413")
        codes.append((await peer.wait(StreamReset)).error_code)
        await peer.respond(await peer.request())
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("POST", body=True), recorder)
        stream.write(b"x")
        assert (await recorder.over()).status == 413
        stream.write(b"x")
        stream.end()
        assert (await fetch(group, request())).status == 200
        assert server.connections == 1
    assert codes == [ErrorCodes.NO_ERROR]


@pytest.mark.parametrize(("method", "status"), [("HEAD", b"200"), ("GET", b"304"), ("GET", b"204")])
async def test_responses_without_content(method: str, status: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        while True:
            length = (b"content-length", b"5")
            await peer.respond(await peer.request(), b"", length, status=status)

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        for _ in range(2):
            recorder = await fetch(group, request(method))
            assert recorder.events == ["response", "end"]


# --- concurrency ----------------------------------------------------------------------------------


async def test_max_concurrent_streams_is_respected_and_another_connection_opened() -> None:
    go = asyncio.Event()
    running = most = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        peer = H2Peer(reader, writer, _3=2)
        first = await peer.request()
        await peer.respond(first)
        mine: list[int] = []
        while True:
            mine.append(await peer.request())
            running += 1
            most = max(most, len(mine))
            if len(mine) == 2:
                await go.wait()
                for stream_id in mine:
                    await peer.respond(stream_id)
                mine.clear()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        await fetch(group, request())  # SETTINGS are known from here on
        sent = [send(group, request()) for _ in range(2)]
        await eventually(lambda: running == 2)
        # The next needs a second connection, whose first answer comes at once.
        third = send(group, request())[1]
        assert (await third.over()).status == 200
        assert (server.connections, most) == (2, 2)
        go.set()
        for _, recorder in sent:
            assert (await recorder.over()).status == 200


async def test_requests_wait_when_every_connection_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_H2_CONNECTIONS", 1)
    monkeypatch.setattr(limits, "UPSTREAM_H2_MAX_STREAMS", 2)
    async with origin(h2_says()) as server, upstream(server, protocol="h2") as group:
        sent = [send(group, request()) for _ in range(9)]
        for _, recorder in sent:
            assert (await recorder.over()).status == 200
        assert server.connections == 1


# --- flow control ---------------------------------------------------------------------------------


async def test_a_paused_client_withholds_its_stream_window_alone() -> None:
    size = 4 * limits.UPSTREAM_H2_STREAM_WINDOW

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        large, small = await peer.request(), await peer.request()
        peer.codec.send_headers(large, [(b":status", b"200")])
        left = size
        while left:
            room = min(
                peer.codec.local_flow_control_window(large),
                peer.codec.max_outbound_frame_size,
                left,
            )
            if room:
                left -= room
                peer.codec.send_data(large, bytes(room), end_stream=not left)
                await peer.flush()
            elif small:
                await peer.respond(small, b"quick")
                small = 0
            else:
                await peer.wait(WindowUpdated, large)
        await reader.read()

    options = {"protocol": "h2", "idle_timeout": 0.2}
    async with origin(script) as server, upstream(server, **options) as group:
        slow, recorder = send(group, request())
        quick = send(group, request())[1]
        slow.pause()
        await quick.over()
        await asyncio.sleep(0.3)  # longer than idle_timeout, which does not run
        assert len(recorder.body) == limits.UPSTREAM_H2_STREAM_WINDOW
        slow.resume()
        await recorder.over()
        assert (recorder.events[-1], len(recorder.body)) == ("end", size)


async def test_the_origins_windows_hold_back_the_request() -> None:
    size = 1_000_000
    got = bytearray()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        while len(got) < size:
            data = await peer.wait(DataReceived)
            got.extend(data.data or b"")
            await go.wait()
            peer.codec.acknowledge_received_data(data.flow_controlled_length or 0, stream_id)
        await peer.respond(stream_id)
        await reader.read()

    go = asyncio.Event()
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        body = bytes(range(256)) * (size // 256) + bytes(size % 256)
        recorder = Recorder()
        stream = group.open(request("PUT", body=True, length=size), recorder)
        await eventually(lambda: bool(group.stats()[stream.server]["active"]))
        for start in range(0, size, 50_000):
            stream.write(body[start : start + 50_000])
        stream.end()
        await recorder.until(lambda: recorder.request_paused)
        assert group.stats()[stream.server]["bytes_sent"] < 70_000  # the default windows: 65535
        go.set()
        assert (await recorder.over()).status == 200
        assert not recorder.request_paused
    assert got == body


async def test_content_in_tiny_pieces_is_joined() -> None:
    """Two bytes per DATA frame of the client are neither an object each in our memory nor a frame
    each at the origin."""
    pieces = [b"%05d" % number for number in range(9000)]
    pieces[4000:4000] = [b"L" * 2000, b"x"]
    body = b"".join(pieces)
    got = bytearray()
    frames = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal frames
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        while len(got) < len(body):
            got.extend((await peer.wait(DataReceived)).data or b"")
            frames += 1
        await peer.respond(stream_id)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("PUT", body=True), recorder)
        await eventually(lambda: bool(group.stats()[stream.server]["active"]))
        for piece in pieces:
            stream.write(piece)
        stream.end()
        assert (await recorder.over()).status == 200
    assert got == body
    assert frames <= 8


async def test_streams_take_turns_sending() -> None:
    order: list[int | None] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        streams = [await peer.request() for _ in range(2)]
        for _ in range(4):
            order.append((await peer.wait(DataReceived)).stream_id)
        for stream_id in streams:
            await peer.respond(stream_id)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorders = []
        for _ in range(2):
            recorders.append(Recorder())
            stream = group.open(request("PUT", body=True), recorders[-1])
            stream.write(bytes(200_000))
        for recorder in recorders:
            await recorder.over()
    assert order[:4] in ([1, 3, 1, 3], [3, 1, 3, 1])


# --- ends -----------------------------------------------------------------------------------------


async def test_abort_resets_the_stream_and_leaves_the_connection() -> None:
    codes: list[object] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        first = await peer.request()
        seen.set()
        codes.append((await peer.wait(StreamReset, first)).error_code)
        await peer.respond(await peer.request())
        await reader.read()

    seen = asyncio.Event()
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await seen.wait()
        stream.abort()
        assert (await fetch(group, request())).status == 200
        assert (recorder.events, server.connections) == ([], 1)
    assert codes == [ErrorCodes.CANCEL]


@pytest.mark.parametrize("answered", [False, True])
async def test_a_reset_by_the_origin(answered: bool) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        if answered:
            peer.codec.send_headers(stream_id, [(b":status", b"200")])
        peer.codec.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        await peer.respond(await peer.request())
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "reset"
        assert "INTERNAL_ERROR" in str(recorder.error)
        assert (await fetch(group, request())).status == 200
        assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_stream_is_retried_whatever_the_method(method: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        peer.codec.reset_stream(await peer.request(), ErrorCodes.REFUSED_STREAM)
        await peer.flush()
        stream_id = await peer.request()
        data = await peer.wait(DataReceived) if method == "POST" else None
        await peer.respond(stream_id, (data.data or b"") if data else b"got")
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request(method, body=method == "POST"), b"body")
        assert bytes(recorder.body) == (b"body" if method == "POST" else b"got")
        (stats,) = group.stats().values()
        assert stats["retries"] == 1


async def test_refusing_for_ever_ends_after_the_retries() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        while True:
            peer.codec.reset_stream(await peer.request(), ErrorCodes.REFUSED_STREAM)

    async with origin(script) as server, upstream(server, protocol="h2", retries=3) as group:
        assert (await fetch(group, request())).kind == "reset"
        (stats,) = group.stats().values()
        assert (stats["requests"], stats["retries"], stats["failures"]) == (4, 3, 4)


def _goaway(last: int) -> bytes:
    return GoAwayFrame(0, last_stream_id=last).serialize()


async def test_goaway_streams_below_end_streams_above_are_retried() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        if server.connections > 1:
            while True:
                await peer.respond(await peer.request(), b"second")
        first, _ = await peer.request(), await peer.request()
        # In one segment: the codec must not stop at GOAWAY.
        peer.codec.send_headers(first, [(b":status", b"200")])
        head = peer.codec.data_to_send()
        peer.codec.send_data(first, b"fir")
        body = peer.codec.data_to_send()
        writer.write(head + _goaway(first) + body)
        await writer.drain()
        await eventually(lambda: server.connections > 1)  # the second request is retried
        peer.codec.send_data(first, b"st", end_stream=True)
        await peer.flush()
        assert await reader.read() is not None

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        first, second = send(group, request("POST"))[1], send(group, request("POST"))[1]
        assert bytes((await second.over()).body) == b"second"
        assert bytes((await first.over()).body) == b"first"
        assert first.events[-1] == "end"
        third = await fetch(group, request())
        assert bytes(third.body) == b"second"
        await eventually(lambda: next(iter(group.stats().values()))["open"] == 1)


async def test_goaway_on_an_idle_connection_closes_it() -> None:
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        await peer.respond(stream_id)
        await go.wait()
        writer.write(_goaway(stream_id))
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.over()
        go.set()
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)
        go.clear()
        assert (await fetch(group, request("POST"))).status == 200


@pytest.mark.parametrize(("method", "retried"), [("GET", True), ("POST", False)])
async def test_a_connection_that_dies_while_in_use_again(method: str, retried: bool) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.respond(await peer.request())
        await peer.request()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        await fetch(group, request())
        recorder = await fetch(group, request(method))
        assert (recorder.head is not None) is retried
        if not retried:
            assert recorder.kind == "reset"


async def test_idle_connections_close_with_goaway() -> None:
    codes: list[object] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.respond(await peer.request())
        codes.append((await peer.wait(ConnectionTerminated)).error_code)

    options = {"protocol": "h2", "keepalive_timeout": 0.05}
    async with origin(script) as server, upstream(server, **options) as group:
        await fetch(group, request())
        await eventually(lambda: bool(codes))
    assert codes == [ErrorCodes.NO_ERROR]


@pytest.mark.parametrize("alive", [False, True])
async def test_a_timeout_asks_by_ping_whether_the_connection_lives(
    alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_PROBE_TIMEOUT", 0.1)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.request()
        await peer.wait(StreamReset)
        if alive:
            await peer.wait(PingReceived)
            await peer.flush()
        await reader.read()

    options = {"protocol": "h2", "first_byte_timeout": 0.05}
    async with origin(script) as server, upstream(server, **options) as group:
        stream, recorder = send(group, request())
        assert (await recorder.over()).kind == "first_byte_timeout"
        if alive:
            await asyncio.sleep(0.25)
            assert group.stats()[stream.server]["open"] == 1
        else:
            await eventually(lambda: group.stats()[stream.server]["open"] == 0)


# --- misbehaviour ---------------------------------------------------------------------------------


def _raw_headers(peer: H2Peer, stream_id: int, *fields: tuple[bytes, bytes], end: bool) -> None:
    """HEADERS that h2 would not let us send."""
    frame = HeadersFrame(stream_id, peer.codec.encoder.encode(list(fields)), flags=["END_HEADERS"])
    if end:
        frame.flags.add("END_STREAM")
    peer.writer.write(frame.serialize())


STATUS = (b":status", b"200")
MALFORMED_HEADS = {
    "no status": [(b"a", b"b")],
    "status of four digits": [(b":status", b"2000")],
    "status is no number": [(b":status", b"abc")],
    "two statuses": [STATUS, STATUS],
    "a request's pseudo-header": [STATUS, (b":path", b"/")],
    "upper case": [STATUS, (b"A", b"b")],
    "no token for a name": [STATUS, (b"a b", b"c")],
    "line break in a value": [STATUS, (b"a", b"b\r\nc: d")],
    "NUL in a value": [STATUS, (b"a", b"\0")],
    "connection": [STATUS, (b"connection", b"close")],
    "transfer-encoding": [STATUS, (b"transfer-encoding", b"chunked")],
    "101": [(b":status", b"101")],
    "too many fields": [STATUS, *[(b"a", b"b")] * 600],
    "less content than declared": [STATUS, (b"content-length", b"5")],
}


@pytest.mark.parametrize("head", MALFORMED_HEADS.values(), ids=MALFORMED_HEADS.keys())
async def test_a_malformed_head_costs_its_stream_alone(head: list[tuple[bytes, bytes]]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        bad, good = await peer.request(), await peer.request()
        _raw_headers(peer, bad, *head, end=head[0][1] != b"101")
        await peer.flush()
        await peer.respond(good, b"fine")
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        bad, good = send(group, request())[1], send(group, request())[1]
        assert (await bad.over()).kind == "protocol"
        assert bytes((await good.over()).body) == b"fine"


async def test_content_where_there_is_none() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.respond(await peer.request(), b"content", status=b"204")
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert (recorder.kind, bytes(recorder.body)) == ("protocol", b"")


async def test_a_bad_trailer_fails() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        peer.codec.send_headers(stream_id, [STATUS])
        await peer.flush()
        _raw_headers(peer, stream_id, (b"a", b"b\nc"), end=True)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).kind == "protocol"


async def test_a_flood_of_interim_responses_fails_the_request() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        for _ in range(200):
            peer.codec.send_headers(stream_id, [(b":status", b"103")])
        await peer.flush()
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "protocol"
        assert len(recorder.interim) >= limits.UPSTREAM_INTERIM_BURST


@pytest.mark.parametrize(
    "noise",
    [
        lambda: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        lambda: b"\xff" * 200,
        lambda: HeadersFrame(1, b"\xff" * 50, flags=["END_HEADERS"]).serialize(),
        lambda: HeadersFrame(2, b"\x88", flags=["END_HEADERS"]).serialize(),
    ],
    ids=["HTTP/1.1", "garbage", "broken HPACK", "a stream of its own"],
)
async def test_a_broken_connection_fails_its_streams_and_closes(noise: Callable[[], bytes]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.request()
        writer.write(noise())
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        assert (await recorder.over()).kind == "protocol"
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


async def test_an_origin_that_speaks_http_1_to_prior_knowledge() -> None:
    script = says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).kind == "protocol"


async def test_a_field_section_bomb_is_refused() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        # One long field enters the table; each further byte names it again.
        block = peer.codec.encoder.encode([STATUS, (b"a", b"b" * 3900)]) + b"\xbe" * 5000
        writer.write(HeadersFrame(stream_id, block, flags=["END_HEADERS"]).serialize())
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).kind == "protocol"


async def test_ping_without_reading_is_bounded() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.request()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        flood = PingFrame(0, b"12345678").serialize() * 10_000
        while True:
            writer.write(flood)
            await writer.drain()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        async with asyncio.timeout(60):
            while not recorder.is_over:
                await asyncio.sleep(0.01)
        assert recorder.error is not None
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


async def test_ping_is_answered() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        stream_id = await peer.request()
        peer.codec.ping(b"12345678")
        await peer.wait(PingAckReceived)
        await peer.respond(stream_id)
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).status == 200


@pytest.mark.parametrize("body", [(b"abcd", b"e"), (b"abc",)])
async def test_a_body_unlike_its_content_length_resets_its_stream(body: tuple[bytes, ...]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        await peer.wait(StreamReset, await peer.request())
        await peer.respond(await peer.request())
        await reader.read()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request("POST", body=True, length=4), *body)
        assert recorder.kind == "request"
        assert (await fetch(group, request())).status == 200


async def test_a_handler_that_raises_costs_its_stream_alone() -> None:
    class Broken(Recorder):
        def response(self, response: object) -> None:
            raise RuntimeError("a bug of ours")

    seen: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    async with origin(h2_says()) as server, upstream(server, protocol="h2") as group:
        broken = Broken()
        group.open(request(), broken)
        assert (await fetch(group, request())).status == 200
        assert (await broken.over()).kind == "reset"
        assert server.connections == 1
    loop.set_exception_handler(before)
    assert [str(context["exception"]) for context in seen] == ["a bug of ours"]
