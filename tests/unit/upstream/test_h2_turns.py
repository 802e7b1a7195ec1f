"""HTTP/2 origins that send many small frames: turns of the event loop, joined content, ends."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import Frame

from quicedge.config import limits
from quicedge.http.message import Field, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Counters, OriginConnection
from quicedge.upstream.h2 import H2Connection
from quicedge.upstream.h2_codec import Codec
from quicedge.upstream.retry import Retry
from tests.support.hostile_h2 import (
    RawH2,
    data,
    goaway,
    head,
    misbehaves_once,
    raw,
    reset,
    settings,
    writes,
)
from tests.support.origins import (
    config_of,
    eventually,
    fetch,
    origin,
    request,
    send,
    upstream,
)
from tests.unit.upstream.test_tls import server_context

PER_TURN = limits.UPSTREAM_H2_FRAMES_PER_TURN
CONTENT = b"".join(b"%05d" % number for number in range(8000))


def tiny(stream_id: int, content: bytes, *, end: bool = False) -> bytes:
    """DATA frames of two bytes."""
    frames = b"".join(data(stream_id, content[at : at + 2]) for at in range(0, len(content), 2))
    return frames + (data(stream_id, b"", end=True) if end else b"")


@pytest.fixture
async def per_turn(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Frames received from origins, by turn of the event loop."""
    loop = asyncio.get_running_loop()
    counts: Counter[int] = Counter()
    turn = 0
    receive = Codec._receive_frame

    def next_turn() -> None:
        nonlocal turn
        turn += 1

    def counted(codec: Codec, frame: Frame) -> Any:
        if turn not in counts:
            loop.call_soon(next_turn)
        counts[turn] += 1
        return receive(codec, frame)

    monkeypatch.setattr(Codec, "_receive_frame", counted)
    return counts


# --- on a real socket -----------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
async def test_tiny_data_frames_never_hold_the_loop(
    secure: bool, tmp_path: Path, per_turn: Counter[int]
) -> None:
    """Nor does an end of the connection right behind them cost any of the response."""

    async def act(peer: RawH2, stream_id: int) -> None:
        trailers = head(stream_id, (b"digest", b"1"), end=True, status=False)
        await peer.send(head(stream_id), tiny(stream_id, CONTENT), trailers)
        peer.writer.close()
        try:
            await peer.drain()
        except ssl.SSLError as error:  # what the edge sent crossed close_notify
            raise ConnectionError from error

    script, _ = misbehaves_once(act)
    tls = server_context(tmp_path, "localhost", alpn=("h2",)) if secure else None
    options = {"tls_ca": str(tmp_path / "cert.pem")} if secure else {}
    async with (
        origin(script, tls=tls) as server,
        upstream(server, protocol="h2", **options) as group,
    ):
        recorder = await fetch(group, request())
        assert recorder.events == ["response", "data", "end"]
        assert bytes(recorder.body) == CONTENT
        assert recorder.trailers == [(b"digest", b"1")]
        assert max(per_turn.values()) <= PER_TURN
        assert per_turn.total() > len(CONTENT) // 2
        assert bytes((await fetch(group, request())).body) == b"fine"


async def test_a_reset_behind_tiny_frames_follows_their_content(per_turn: Counter[int]) -> None:
    script, _ = misbehaves_once(writes(lambda s: head(s) + tiny(s, CONTENT) + reset(s, 2)))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "reset"
        assert bytes(recorder.body) == CONTENT
        assert max(per_turn.values()) <= PER_TURN
        assert (await fetch(group, request())).status == 200
        assert server.connections == 1


async def test_an_aborted_response_in_tiny_frames_leaves_the_connection_usable() -> None:
    script, _ = misbehaves_once(writes(lambda s: head(s) + tiny(s, CONTENT)))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.until(lambda: bool(recorder.body))
        stream.abort()
        assert (await fetch(group, request())).status == 200
        assert len(recorder.body) < len(CONTENT)
        assert server.connections == 1


async def test_a_fault_behind_tiny_frames_ends_the_connection() -> None:
    script, peers = misbehaves_once(
        writes(lambda s: head(s) + tiny(s, CONTENT) + raw(6, 0, 0, b""))
    )
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert recorder.kind == "protocol"
        assert bytes(recorder.body) == CONTENT
        await eventually(lambda: group.stats()[stream.server]["open"] == 0)
        await eventually(lambda: peers[0].goaway is not None)


async def test_closing_the_upstream_while_tiny_frames_wait() -> None:
    script, _ = misbehaves_once(writes(lambda s: head(s) + tiny(s, CONTENT, end=True)))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = send(group, request())[1]
        await recorder.until(lambda: bool(recorder.body))
        await group.close(grace=0)
        assert recorder.kind == "reset"
        assert len(recorder.body) < len(CONTENT)


# --- turn by turn ---------------------------------------------------------------------------------


class Tape:
    """A `Receiver` that records what is delivered."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.ended = False
        self.failure: tuple[UpstreamError, Retry] | None = None

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None: ...

    def data(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.pieces) < 10_000:
            self.pieces.append(data)

    def end_of_response(self, trailers: Sequence[Field]) -> None:
        self.ended = True

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None:
        self.failure = error, retry

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


class Owner:
    """An `Owner` that records the end of its connection."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.has_retired = False
        self.has_closed = False

    def available(self, connection: OriginConnection) -> None: ...

    def retired(self, connection: OriginConnection) -> None:
        self.has_retired = True

    def closed(self, connection: OriginConnection) -> None:
        self.has_closed = True

    def limited(self, max_streams: int) -> None: ...

    def repaired_response(self, what: str) -> None: ...


class Transport(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0
        self.reading = True
        self.closing = False
        self.written = bytearray()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.pauses += 1
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class Conversation:
    """A connection with one request, fed by the test."""

    def __init__(self) -> None:
        self.owner, self.transport, self.tape = Owner(), Transport(), Tape()
        loop = asyncio.get_running_loop()
        self.connection = H2Connection(self.owner, config_of("http://127.0.0.1:1"), loop)
        self.connection.connection_made(self.transport)
        self.attempt = self.connection.start(request(), self.tape)
        self.connection.data_received(settings() + head(1))

    def lose(self, error: Exception | None = None) -> None:
        self.transport.closing = True
        self.connection.connection_lost(error)

    async def all_handled(self) -> int:
        """The number of turns until reading resumes."""
        turns = 0
        while not self.transport.reading:
            await asyncio.sleep(0)
            turns += 1
        return turns


async def test_small_content_of_a_turn_is_delivered_together() -> None:
    it = Conversation()
    other = Tape()
    it.connection.start(request(), other)
    it.connection.data_received(head(3))
    pairs = [CONTENT[at : at + 2] for at in range(0, 2000, 2)]
    large = b"x" * 4096
    it.connection.data_received(
        b"".join(data(1, pair) + data(3, pair) for pair in pairs) + data(1, large, end=True)
    )
    assert not it.transport.reading
    turns = await it.all_handled()
    assert turns == 2001 // PER_TURN + 1  # the last one only reads
    assert b"".join(it.tape.pieces) == CONTENT[:2000] + large
    assert b"".join(other.pieces) == CONTENT[:2000]
    assert it.tape.ended
    assert not other.ended
    assert len(it.tape.pieces) == turns + 1
    assert len(other.pieces) == turns
    it.lose()


async def test_small_and_large_content_keeps_its_order() -> None:
    it = Conversation()
    sizes = [1, 2, 5000, 3, 1024, 1023, 1, 16384, 7]
    contents = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    it.connection.data_received(b"".join(data(1, content) for content in contents))
    assert b"".join(it.tape.pieces) == b"".join(contents)
    assert len(it.tape.pieces) == 7
    it.lose()


async def test_bytes_that_arrive_while_frames_wait_follow_them() -> None:
    it = Conversation()
    frames = tiny(1, CONTENT[:4000], end=True)
    it.connection.data_received(frames[:9005])
    it.connection.data_received(frames[9005:])
    await it.all_handled()
    assert b"".join(it.tape.pieces) == CONTENT[:4000]
    assert it.tape.ended
    it.lose()


async def test_a_response_that_waits_survives_the_end_of_the_connection() -> None:
    it = Conversation()
    it.connection.data_received(tiny(1, CONTENT[:4000], end=True))
    it.lose()
    assert it.owner.has_retired
    assert it.connection.capacity == 0
    assert not it.owner.has_closed
    await eventually(lambda: it.owner.has_closed)
    assert b"".join(it.tape.pieces) == CONTENT[:4000]
    assert it.tape.ended
    assert it.tape.failure is None


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset by peer")])
async def test_an_incomplete_response_that_waits_fails_after_its_content(
    error: Exception | None,
) -> None:
    it = Conversation()
    it.connection.data_received(tiny(1, CONTENT[:4000]))
    it.lose(error)
    await eventually(lambda: it.owner.has_closed)
    assert b"".join(it.tape.pieces) == CONTENT[:4000]
    assert not it.tape.ended
    assert it.tape.failure is not None
    assert it.tape.failure[1] is Retry.NEVER


async def test_unprocessed_requests_behind_a_waiting_goaway_are_retried() -> None:
    it = Conversation()
    other = Tape()
    it.connection.start(request("POST"), other)
    it.connection.data_received(tiny(1, CONTENT[:4000], end=True) + goaway(1))
    it.lose()
    await eventually(lambda: it.owner.has_closed)
    assert it.tape.ended
    assert other.failure is not None
    assert other.failure[1] is Retry.ALWAYS


@pytest.mark.parametrize("how", ["abort", "terminate"])
async def test_what_nobody_needs_is_dropped_with_the_connection(how: str) -> None:
    it = Conversation()
    it.connection.data_received(tiny(1, CONTENT[:4000]))
    delivered = it.tape.size
    if how == "abort":
        it.attempt.abort()
    else:
        it.connection.terminate()
    it.lose()
    assert it.owner.has_closed
    await asyncio.sleep(0)
    assert it.tape.size == delivered


async def test_full_frames_never_wait() -> None:
    """128 MB in frames of the default maximum size, as nginx and others send."""
    it = Conversation()
    stream = data(1, b"x" * 16384) * 16
    rounds = 128 * 1024 * 1024 // (16 * 16384)
    half = len(stream) // 2 - 1000  # reads do not end where frames do
    for _ in range(rounds):
        it.connection.data_received(stream[:half])
        it.connection.data_received(stream[half:])
        await asyncio.sleep(0)
    assert it.tape.size == rounds * 16 * 16384
    assert it.tape.failure is None
    assert it.transport.pauses == 0
    it.lose()


async def test_a_full_read_of_kilobyte_frames_does_not_wait() -> None:
    it = Conversation()
    it.connection.data_received((data(1, b"x" * 1024) * 254)[: 256 * 1024])
    assert it.transport.pauses == 0
    it.lose()
