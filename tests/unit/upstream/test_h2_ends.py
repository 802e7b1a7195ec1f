"""HTTP/2 origins that reset streams, send GOAWAY, allow no streams, or close or hang midway."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes as Code
from hpack import Encoder

from quicedge.config import limits
from tests.support.hostile_h2 import (
    BIG,
    STATUS,
    Frames,
    RawH2,
    block_of,
    data,
    goaway,
    head,
    misbehaves_once,
    raw,
    reset,
    settings,
    window,
    writes,
)
from tests.support.origins import Recorder, eventually, fetch, origin, request, send, upstream

# --- RST_STREAM and GOAWAY ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*range(14), 0x1234], ids=lambda code: f"code {code}")
@pytest.mark.parametrize("when", ["before", "after interim", "after headers", "within content"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_reset(code: int, when: str, method: str) -> None:
    """Section 8.7: REFUSED_STREAM alone says that a request may be sent again."""

    async def act(peer: RawH2, stream_id: int) -> None:
        before = {
            "before": b"",
            "after interim": block_of(stream_id, Encoder().encode([(b":status", b"103")])),
            "after headers": head(stream_id),
            "within content": head(stream_id) + data(stream_id, b"part"),
        }
        await peer.send(before[when], reset(stream_id, code))

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request(method, body=method == "POST"), b"body")
        if code == Code.REFUSED_STREAM and when == "before":
            assert bytes(recorder.body) == b"fine"
        else:
            assert recorder.kind == "reset"
            assert "end" not in recorder.events
            assert (recorder.head is not None) is (when in ("after headers", "within content"))
        assert (await fetch(group, request())).status == 200
        assert server.connections == 1


async def test_a_flood_of_resets_of_one_stream_ends_the_connection() -> None:
    script, peers = misbehaves_once(writes(lambda s: reset(s, Code.INTERNAL_ERROR) * 20_000))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).kind == "reset"
        await eventually(lambda: next(iter(group.stats().values()))["open"] == 0)
        assert (await fetch(group, request())).status == 200
        assert peers[0].goaway == Code.ENHANCE_YOUR_CALM


async def test_a_flood_of_resets_costs_its_requests_alone() -> None:
    """Each request is refused at once, for ever: neither hot loops nor connections without end."""

    async def act(peer: RawH2, stream_id: int) -> None:
        while True:
            await peer.send(reset(stream_id, Code.INTERNAL_ERROR))
            stream_id = await peer.request()

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        for _ in range(20):
            sent = [send(group, request())[1] for _ in range(100)]
            assert {(await recorder.over()).kind for recorder in sent} == {"reset"}
        assert server.connections == 1


async def test_a_response_that_crosses_the_reset_of_its_request_costs_no_other() -> None:
    encoder = Encoder()

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(block_of(stream_id, encoder.encode([STATUS])))
        while stream_id not in peer.resets:
            await peer.frame()
        second = await peer.request()
        late = block_of(stream_id, encoder.encode([(b"late", b"yes")]), end=True)
        answer = block_of(second, encoder.encode([STATUS, (b"late", b"yes")]), end=True)
        await peer.send(late, answer)

    script, peers = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.until(lambda: recorder.head is not None)
        stream.abort()
        other = await fetch(group, request())
        assert other.status == 200
        assert other.head is not None
        assert (b"late", b"yes") in other.head.fields
        assert peers[0].goaway is None
        assert server.connections == 1


async def test_goaway_before_any_request_is_answered() -> None:
    """Nothing was processed, whatever the method: all of it is sent again, elsewhere."""

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.request()
        await peer.send(goaway(0, Code.ENHANCE_YOUR_CALM))

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        sent = [send(group, request(m, body=m == "POST"), b"x")[1] for m in ("GET", "POST")]
        assert [bytes((await recorder.over()).body) for recorder in sent] == [b"fine"] * 2
        assert server.connections == 2


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.INTERNAL_ERROR])
async def test_goaway_then_close_fails_what_may_have_been_processed(code: Code) -> None:
    async def act(peer: RawH2, first: int) -> None:
        second = await peer.request()
        await peer.request()
        await peer.send(goaway(second, code))
        peer.writer.close()

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        sent = [send(group, request("POST", body=True), b"x")[1] for _ in range(3)]
        first, second, third = [await recorder.over() for recorder in sent]
        assert (first.kind, second.kind) == ("reset", "reset")
        assert bytes(third.body) == b"fine"
        assert server.connections == 2


async def test_goaway_for_every_request_ends_after_the_retries() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        peer = RawH2(reader, writer)
        await peer.open()
        await peer.request()
        await peer.send(goaway(0))
        await peer.drain()

    async with origin(script) as server, upstream(server, protocol="h2", retries=2) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert (recorder.kind, connections) == ("reset", 3)
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


async def test_goaway_in_the_place_of_the_preface() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawH2(reader, writer)
        await peer.open(goaway(0))
        await peer.drain()

    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert recorder.kind == "protocol"
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


# --- limits on streams ----------------------------------------------------------------------------


async def test_no_streams_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is sent before SETTINGS say so, and refused; none waits for ever."""
    monkeypatch.setattr(limits, "UPSTREAM_QUEUE_TIMEOUT", 0.2)
    refused = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        peer = RawH2(reader, writer)
        await peer.open(settings(_3=0))
        while True:
            stream_id = await peer.request()
            refused += 1
            await peer.send(reset(stream_id, Code.REFUSED_STREAM))

    options = {"protocol": "h2", "connect_timeout": 0.2}
    async with origin(script) as server, upstream(server, **options) as group:
        sent = [send(group, request())[1] for _ in range(5)]
        kinds = {(await recorder.over()).kind for recorder in sent}
        assert kinds <= {"reset", "overloaded"}
        stream, recorder = send(group, request())
        assert (await recorder.over()).kind in kinds
        assert server.connections <= limits.UPSTREAM_H2_CONNECTIONS
        assert group.stats()[stream.server]["waiting"] == 0


async def test_fewer_streams_midway() -> None:
    """Those that run go on; no more are opened on this connection until they fit."""

    async def act(peer: RawH2, first: int) -> None:
        second = await peer.request()
        await peer.send(settings(_3=1), head(first), head(second))
        while True:  # until the edge has read the SETTINGS
            frame = await peer.frame()
            if frame.kind == 4 and frame.flags & 1:
                break
        changed.set()
        third = asyncio.ensure_future(peer.request())
        await go.wait()
        assert not third.done()
        await peer.send(data(first, b"1", end=True), data(second, b"2", end=True))
        late = await third
        await peer.send(head(late), data(late, b"late", end=True))

    changed, go = asyncio.Event(), asyncio.Event()
    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        sent = [send(group, request())[1] for _ in range(2)]
        await changed.wait()
        assert bytes((await fetch(group, request())).body) == b"fine"  # on another connection
        assert server.connections == 2
        go.set()
        assert [bytes((await recorder.over()).body) for recorder in sent] == [b"1", b"2"]


# --- connections that end or fall silent ----------------------------------------------------------

HALVES = {
    "nothing": lambda s: b"",
    "half a frame header": lambda s: head(s)[:5],
    "half of HEADERS": lambda s: head(s, (b"a", b"b"))[:12],
    "HEADERS without their end": lambda s: block_of(s, b"\x88", last=False),
    "no content": lambda s: head(s, (b"content-length", b"5")),
    "half of DATA": lambda s: head(s) + data(s, b"hello", end=True)[:11],
    "DATA without the end": lambda s: head(s) + data(s, b"hello"),
    "an interim response": lambda s: block_of(s, Encoder().encode([(b":status", b"103")])),
}


@pytest.mark.parametrize("frames", HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("abruptly", [False, True])
async def test_a_connection_that_ends_midway(frames: Frames, abruptly: bool) -> None:
    """Never the end of a response, and never sent again: the connection was fresh."""

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(frames(stream_id))
        await asyncio.sleep(0.01)  # a reset may overtake what was sent
        peer.writer.transport.abort() if abruptly else peer.writer.close()

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "reset"
        assert "end" not in recorder.events
        assert server.connections == 1
        assert (await fetch(group, request())).status == 200


@pytest.mark.parametrize("frames", HALVES.values(), ids=HALVES.keys())
async def test_an_origin_that_falls_silent(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_PROBE_TIMEOUT", 0.1)

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(frames(stream_id))
        await peer.drain()

    script, _ = misbehaves_once(act)
    options = {"protocol": "h2", "first_byte_timeout": 0.5, "idle_timeout": 0.1}
    async with origin(script) as server, upstream(server, **options) as group:
        stream, recorder = send(group, request())
        await recorder.over()
        responded = recorder.head is not None
        assert recorder.kind == ("idle_timeout" if responded else "first_byte_timeout")
        if not responded:  # its PING is not answered either
            await eventually(lambda: group.stats()[stream.server]["open"] == 0)
            assert (await fetch(group, request())).status == 200


async def test_an_origin_that_says_nothing_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_PROBE_TIMEOUT", 0.1)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    options = {"protocol": "h2", "first_byte_timeout": 0.1}
    async with origin(script) as server, upstream(server, **options) as group:
        stream, recorder = send(group, request())
        assert (await recorder.over()).kind == "first_byte_timeout"
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)


@pytest.mark.parametrize("how", ["close", "abort", "reset", "goaway", "half"])
async def test_an_end_while_a_request_body_goes_up(how: str) -> None:
    async def act(peer: RawH2, stream_id: int) -> None:
        received = 0
        while received < 30_000:
            frame = await peer.frame()
            received += len(frame.payload) if frame.kind == 0 else 0
        match how:
            case "close":
                peer.writer.close()
            case "abort":
                peer.writer.transport.abort()
            case "reset":
                await peer.send(reset(stream_id, Code.CANCEL))
            case "goaway":
                await peer.send(goaway(stream_id, Code.INTERNAL_ERROR))
                peer.writer.close()
            case "half":
                await peer.send(head(stream_id)[:10])
                peer.writer.close()

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("PUT", body=True), recorder)
        stream.write(bytes(1_000_000))
        await recorder.over()
        assert recorder.kind == "reset"
        stream.write(bytes(1000))  # the client does not know yet
        stream.end()
        assert (await fetch(group, request("PUT", body=True), b"x")).status == 200


async def test_a_window_that_never_opens() -> None:
    script, _ = misbehaves_once(lambda peer, stream_id: peer.drain(), settings(_4=0))
    options = {"protocol": "h2", "idle_timeout": 0.2, "first_byte_timeout": 0.2}
    async with origin(script) as server, upstream(server, **options) as group:
        open_ended = Recorder()
        group.open(request("PUT", body=True), open_ended).write(bytes(1_000_000))
        whole = send(group, request("PUT", body=True), b"x")[1]
        assert (await open_ended.over()).kind == "idle_timeout"
        assert (await whole.over()).kind == "first_byte_timeout"


async def test_who_breaks_the_connection_and_does_not_read_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing waits for what is still to be sent, and that may be for ever."""
    monkeypatch.setattr(limits, "UPSTREAM_CLOSE_TIMEOUT", 0.1)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawH2(reader, writer)
        await peer.open(settings(_4=BIG) + window(0, BIG - 65535))
        await peer.request()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await full.wait()
        writer.write(raw(6, 0, 0, b"short"))
        await done.wait()

    full, done = asyncio.Event(), asyncio.Event()
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(request("PUT", body=True), recorder)
        for _ in range(120):
            stream.write(bytes(100_000))  # more than any socket buffer
        sent = -1
        while sent != (now := group.stats()[stream.server]["bytes_sent"]) or not now:
            sent = now
            await asyncio.sleep(0.05)
        full.set()
        assert (await recorder.over()).kind == "protocol"
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)
        done.set()
