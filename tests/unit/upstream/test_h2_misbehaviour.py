"""Origins that violate HTTP/2 (RFC 9113), frame by frame, on a real socket.

Whatever one does, its request has one outcome, other requests go on or fail with it, and the next
request is served. `conftest` sees that no task and no socket is left.
"""

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
    continuation,
    data,
    goaway,
    head,
    misbehaves_once,
    ping,
    push_promise,
    raw,
    reset,
    settings,
    window,
    writes,
)
from tests.support.origins import eventually, fetch, origin, request, send, upstream


def bomb(stream_id: int) -> bytes:
    """3900 bytes enter the HPACK table, and each further byte names them again."""
    block = Encoder().encode([STATUS, (b"a", b"b" * 3900)])
    return block_of(stream_id, block + b"\xbe" * 5000)


CONNECTION_ERRORS: dict[str, Frames] = {
    # --- frames (RFC 9113 sections 4 and 6) ---
    "DATA on stream 0": lambda s: raw(0, 0, 0, b"x"),
    "HEADERS on stream 0": lambda s: raw(1, 4, 0, b"\x88"),
    "DATA on an idle stream": lambda s: data(s + 20, b"x"),
    "HEADERS on an idle stream": lambda s: head(s + 20),
    "RST_STREAM of an idle stream": lambda s: reset(s + 20, 0),
    "RST_STREAM on stream 0": lambda s: raw(3, 0, 0, bytes(4)),
    "RST_STREAM of three bytes": lambda s: raw(3, 0, s, bytes(3)),
    "WINDOW_UPDATE of an idle stream": lambda s: window(s + 20, 1),
    "WINDOW_UPDATE of three bytes": lambda s: raw(8, 0, 0, bytes(3)),
    "WINDOW_UPDATE of 0": lambda s: window(0, 0),
    "WINDOW_UPDATE of 0 on a stream": lambda s: window(s, 0),
    "a connection window beyond 2^31-1": lambda s: window(0, BIG),
    "stream windows beyond 2^31-1": lambda s: window(s, 2**30) + settings(_4=BIG),
    "SETTINGS on a stream": lambda s: raw(4, 0, s, b""),
    "SETTINGS of five bytes": lambda s: raw(4, 0, 0, bytes(5)),
    "an ACK of SETTINGS with content": lambda s: raw(4, 1, 0, bytes(6)),
    "a window setting beyond 2^31-1": lambda s: settings(_4=2**31),
    "a frame size setting below 2^14": lambda s: settings(_5=100),
    "a frame size setting of 2^24": lambda s: settings(_5=2**24),
    "ENABLE_PUSH from a server": lambda s: settings(_2=1),
    "PING on a stream": lambda s: raw(6, 0, s, bytes(8)),
    "PING of seven bytes": lambda s: raw(6, 0, 0, bytes(7)),
    "GOAWAY on a stream": lambda s: raw(7, 0, s, bytes(8)),
    "GOAWAY of seven bytes": lambda s: raw(7, 0, 0, bytes(7)),
    "PUSH_PROMISE": lambda s: push_promise(s, 2),
    "a pushed response": lambda s: head(2),
    "a frame above SETTINGS_MAX_FRAME_SIZE": lambda s: raw(0, 0, s, bytes(16385)),
    "padding longer than its frame": lambda s: head(s) + raw(0, 8, s, b"\xffx"),
    "CONTINUATION out of nothing": lambda s: continuation(s, b"\x88", last=True),
    "DATA within a field section": lambda s: block_of(s, b"\x88", last=False) + data(s, b"x"),
    "CONTINUATION of another stream": lambda s: (
        block_of(s, b"\x88", last=False) + continuation(s + 2, b"", last=True)
    ),
    # --- field sections (sections 4.3 and 10.5.1) ---
    "broken HPACK": lambda s: block_of(s, b"\xff" * 40),
    "an HPACK table beyond the setting": lambda s: block_of(s, b"\x3f\xe1\xff\x03\x88"),
    "an endless CONTINUATION": lambda s: (
        block_of(s, b"\x88", last=False) + continuation(s, b"") * 5000
    ),
    "CONTINUATION of a megabyte": lambda s: (
        block_of(s, b"\x88", last=False) + continuation(s, b"b" * 16000) * 100
    ),
    "a field section above the limit": lambda s: head(s, *[(b"a", b"b" * 3000)] * 100),
    "an HPACK bomb": bomb,
    # --- floods (section 10.5) ---
    "a flood of PING": lambda s: ping() * 20_000,
    "a flood of SETTINGS": lambda s: settings(_1=4096) * 20_000,
    "a flood of SETTINGS acknowledgments": lambda s: raw(4, 1, 0, b"") * 20_000,
    "a flood of empty DATA": lambda s: head(s) + data(s, b"") * 20_000,
    "a flood of WINDOW_UPDATE": lambda s: window(s, 1) * 20_000,
    "a flood of PRIORITY": lambda s: raw(2, 0, s, bytes((0, 0, 0, 0, 9))) * 20_000,
    "a flood of GOAWAY": lambda s: goaway(s) * 20_000,
    "a flood of unknown frames": lambda s: raw(0x77, 0, 0, b"") * 20_000,
}

STREAM_ERRORS: dict[str, Frames] = {
    # --- order (section 8.1) ---
    "DATA before HEADERS": lambda s: data(s, b"x"),
    "an end before HEADERS": lambda s: data(s, b"", end=True),
    "an end behind an interim response": lambda s: (
        block_of(s, Encoder().encode([(b":status", b"103")]), end=True)
    ),
    "content behind an interim response": lambda s: (
        block_of(s, Encoder().encode([(b":status", b"103")])) + data(s, b"x", end=True)
    ),
    "a flood of interim responses": lambda s: (
        block_of(s, Encoder().encode([(b":status", b"103")])) * 200
    ),
    "trailers that are not the end": lambda s: head(s) + head(s, (b"a", b"b"), status=False),
    "a second response": lambda s: head(s) + head(s),
    "an interim response in the place of trailers": lambda s: (
        head(s) + block_of(s, Encoder().encode([(b":status", b"103")]))
    ),
    # --- field sections (sections 8.2 and 8.3) ---
    "no :status": lambda s: head(s, (b"a", b"b"), status=False, end=True),
    "an empty field section": lambda s: block_of(s, b"", end=True),
    "two :status": lambda s: head(s, STATUS, end=True),
    ":status of four digits": lambda s: head(s, (b":status", b"2000"), status=False),
    ":status of no digits": lambda s: head(s, (b":status", b""), status=False),
    ":status with a sign": lambda s: head(s, (b":status", b"+20"), status=False),
    ":status below 100": lambda s: head(s, (b":status", b"099"), status=False),
    ":status behind a field": lambda s: (
        head(s, (b"a", b"b"), STATUS, status=False, end=True)
    ),
    "an unknown pseudo-header": lambda s: head(s, (b":what", b"x"), end=True),
    "a request's pseudo-header": lambda s: head(s, (b":path", b"/"), end=True),
    "upper case": lambda s: head(s, (b"Server", b"x"), end=True),
    "an empty name": lambda s: head(s, (b"", b"x"), end=True),
    "space in a name": lambda s: head(s, (b"a b", b"x"), end=True),
    "space before a value": lambda s: head(s, (b"a", b" x"), end=True),
    "CR in a value": lambda s: head(s, (b"a", b"x\r"), end=True),
    "NUL in a value": lambda s: head(s, (b"a", b"\0"), end=True),
    **{
        f"{name.decode()} in HTTP/2": lambda s, name=name: head(s, (name, b"x"), end=True)  # type: ignore[misc]
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding",
                     b"upgrade")
    },
    "101": lambda s: head(s, (b":status", b"101"), status=False),
    "pseudo-header in trailers": lambda s: head(s) + head(s, end=True),
    "upper case in trailers": lambda s: head(s) + head(s, (b"A", b"b"), status=False, end=True),
    "connection in trailers": lambda s: (
        head(s) + head(s, (b"connection", b"b"), status=False, end=True)
    ),
    "too many fields": lambda s: head(s, *[(b"a", b"b")] * 600),
    "too many trailers": lambda s: (
        head(s) + head(s, *[(b"a", b"b")] * 600, status=False, end=True)
    ),
    # --- content (section 8.1.1) ---
    "less content than declared": lambda s: (
        head(s, (b"content-length", b"5")) + data(s, b"four", end=True)
    ),
    "no content though declared": lambda s: head(s, (b"content-length", b"5"), end=True),
    "more content than declared": lambda s: (
        head(s, (b"content-length", b"3")) + data(s, b"four", end=True)
    ),
    "two lengths": lambda s: (
        head(s, (b"content-length", b"4"), (b"content-length", b"5")) + data(s, b"four")
    ),
    "a signed length": lambda s: head(s, (b"content-length", b"+4")) + data(s, b"four", end=True),
    "less content than declared, then trailers": lambda s: (
        head(s, (b"content-length", b"5")) + data(s, b"four")
        + head(s, (b"a", b"b"), status=False, end=True)
    ),
    # --- flow control ---
    "a stream's window beyond 2^31-1": lambda s: window(s, BIG),
}  # fmt: skip


@pytest.mark.parametrize("frames", CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS.keys())
async def test_what_breaks_the_connection_ends_it(frames: Frames) -> None:
    """Section 5.4.1: GOAWAY says why, the connection is closed, the next request has another."""
    script, peers = misbehaves_once(writes(frames))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.over()
        assert recorder.kind == "protocol"
        assert bytes((await fetch(group, request())).body) == b"fine"
        assert server.connections == 2
        assert peers[0].goaway not in (None, Code.NO_ERROR)
        await eventually(lambda: group.stats()[stream.server]["open"] == 1)


@pytest.mark.parametrize("frames", STREAM_ERRORS.values(), ids=STREAM_ERRORS.keys())
async def test_what_breaks_a_response_costs_it_alone(frames: Frames) -> None:
    """Section 8.1.1: the stream is reset, and the connection serves the next request."""
    script, peers = misbehaves_once(writes(frames))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert recorder.kind == "protocol"
        assert "end" not in recorder.events
        assert bytes((await fetch(group, request())).body) == b"fine"
        assert server.connections == 1
        assert peers[0].goaway is None


async def test_a_malformed_response_leaves_the_others_alone() -> None:
    async def act(peer: RawH2, first: int) -> None:
        second = await peer.request()
        bad = head(first, (b"content-length", b"3")) + data(first, b"four")
        await peer.send(head(second), data(second, b"go"), bad, data(second, b"es on", end=True))

    script, peers = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        bad, good = send(group, request())[1], send(group, request())[1]
        assert (await bad.over()).kind == "protocol"
        assert bytes((await good.over()).body) == b"goes on"
        assert (await fetch(group, request())).status == 200
        assert (peers[0].resets, len(peers)) == ({1: Code.PROTOCOL_ERROR}, 1)


async def test_a_malformed_response_before_a_fault_of_the_connection() -> None:
    """Nothing is sent for a stream on a connection that has been given up."""
    script, _ = misbehaves_once(writes(lambda s: head(s, STATUS, end=True) + window(0, 0)))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        assert (await fetch(group, request())).kind == "protocol"
        assert (await fetch(group, request())).status == 200
        assert server.connections == 2


async def test_malformed_content_gives_its_window_back() -> None:
    """What is thrown away counts towards the connection's window all the same."""
    size = limits.UPSTREAM_H2_CONNECTION_WINDOW + 65535
    rounds = size // 16384 + 100

    async def act(peer: RawH2, stream_id: int) -> None:
        for _ in range(rounds):
            await peer.send(data(stream_id, bytes(16384)))
            stream_id = await peer.request()
        await peer.send(head(stream_id), data(stream_id, b"", end=True))

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        for _ in range(rounds):
            assert (await fetch(group, request())).kind == "protocol"
        assert (await fetch(group, request())).status == 200
        assert server.connections == 1


async def test_more_than_a_streams_window_ends_the_connection() -> None:
    go = asyncio.Event()

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(head(stream_id))
        await go.wait()
        await peer.send(data(stream_id, bytes(16384)) * 17)

    script, peers = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        stream, recorder = send(group, request())
        await recorder.until(lambda: recorder.head is not None)
        stream.pause()
        go.set()
        await recorder.over()
        assert recorder.kind == "protocol"
        assert len(recorder.body) <= limits.UPSTREAM_H2_STREAM_WINDOW
        assert (await fetch(group, request())).status == 200
        assert peers[0].goaway == Code.FLOW_CONTROL_ERROR


async def test_work_pays_for_the_frames_that_come_with_it() -> None:
    """WINDOW_UPDATE and PING for each piece, as some origins send, are no flood."""
    pieces = limits.UPSTREAM_H2_FLOOD_BURST

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(head(stream_id))
        for _ in range(pieces):
            await peer.send(data(stream_id, b"x"), window(stream_id, 1), window(0, 1), ping())
        await peer.send(data(stream_id, b"", end=True))

    script, _ = misbehaves_once(act)
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        recorder = await fetch(group, request())
        assert len(recorder.body) == pieces
        assert recorder.events[-1] == "end"


async def test_frames_on_a_stream_that_has_ended() -> None:
    """Section 5.1: STREAM_CLOSED; the response that was whole before stays so."""
    script, peers = misbehaves_once(
        writes(lambda s: head(s) + data(s, b"whole", end=True) + data(s, b"!") * 2)
    )
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        first = await fetch(group, request())
        assert (bytes(first.body), first.events[-1]) == (b"whole", "end")
        assert bytes((await fetch(group, request())).body) == b"fine"
        assert peers[0].resets == {1: Code.STREAM_CLOSED}


@pytest.mark.parametrize(
    "frames", [CONNECTION_ERRORS["PING of seven bytes"], lambda s: b"\xff" * 50]
)
async def test_a_response_that_was_whole_before_a_fault_counts(frames: Frames) -> None:
    """However the segments were cut."""
    script, _ = misbehaves_once(writes(lambda s: head(s) + data(s, b"whole", end=True) + frames(s)))
    async with origin(script) as server, upstream(server, protocol="h2") as group:
        first = await fetch(group, request())
        assert (bytes(first.body), first.events[-1]) == (b"whole", "end")
        await eventually(lambda: next(iter(group.stats().values()))["open"] == 0)
        assert (await fetch(group, request())).status == 200
