"""An HTTP/2 origin that writes the frames of a script, and nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.origins import Script

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUS = (b":status", b"200")
BIG = 2**31 - 1
Frames = Callable[[int], bytes]
"""What is written on a stream."""


@dataclass
class Received:
    """A frame of the edge's."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


class RawH2:
    """The origin's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.goaway: int | None = None
        """The error code of the edge's GOAWAY."""
        self.resets: dict[int, int] = {}
        """Error codes of the edge's RST_STREAM."""

    async def open(self, settings: bytes | None = None) -> None:
        assert await self.reader.readexactly(len(PREFACE)) == PREFACE
        self.writer.write(SettingsFrame(0).serialize() if settings is None else settings)

    async def frame(self) -> Received:
        """The edge's next frame; raises IncompleteReadError when it has closed."""
        head = await self.reader.readexactly(9)
        payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        frame = Received(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        if frame.kind == GoAwayFrame.type:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif frame.kind == RstStreamFrame.type:
            self.resets[frame.stream_id] = int.from_bytes(payload, "big")
        return frame

    async def request(self) -> int:
        """The stream of the next request."""
        while True:
            frame = await self.frame()
            if frame.kind == HeadersFrame.type:
                return frame.stream_id

    async def drain(self) -> None:
        """Read until the edge closes."""
        try:
            while True:
                await self.frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def serve(self) -> None:
        """Answer all further requests as one should."""
        while True:
            stream_id = await self.request()
            await self.send(head(stream_id), data(stream_id, b"fine", end=True))


def head(
    stream_id: int, *fields: tuple[bytes, bytes], end: bool = False, status: bool = True
) -> bytes:
    """HEADERS; a response of status 200 unless `status` says otherwise."""
    block = Encoder().encode([*([STATUS] if status else []), *fields])
    return block_of(stream_id, block, end=end)


def block_of(stream_id: int, block: bytes, *, end: bool = False, last: bool = True) -> bytes:
    flags = [*(["END_STREAM"] if end else []), *(["END_HEADERS"] if last else [])]
    return HeadersFrame(stream_id, block, flags=flags).serialize()


def continuation(stream_id: int, block: bytes, *, last: bool = False) -> bytes:
    return ContinuationFrame(stream_id, block, flags=["END_HEADERS"] if last else []).serialize()


def data(stream_id: int, content: bytes, *, end: bool = False) -> bytes:
    return DataFrame(stream_id, content, flags=["END_STREAM"] if end else []).serialize()


def reset(stream_id: int, code: int) -> bytes:
    return RstStreamFrame(stream_id, error_code=code).serialize()


def goaway(last: int, code: int = 0) -> bytes:
    return GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()


def window(stream_id: int, increment: int) -> bytes:
    # hyperframe refuses to write the increments that matter here.
    return raw(WindowUpdateFrame.type, 0, stream_id, increment.to_bytes(4, "big"))


def settings(**values: int) -> bytes:
    """SETTINGS: `_3=7` sets identifier 3."""
    body = b"".join(
        int(name[1:]).to_bytes(2, "big") + value.to_bytes(4, "big")
        for name, value in values.items()
    )
    return raw(SettingsFrame.type, 0, 0, body)


def ping() -> bytes:
    return PingFrame(0, b"12345678").serialize()


def push_promise(stream_id: int, promised: int) -> bytes:
    block = Encoder().encode(
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
    )
    frame: Frame = PushPromiseFrame(stream_id, promised, block, flags=["END_HEADERS"])
    return frame.serialize()


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Any frame at all."""
    return (
        len(payload).to_bytes(3, "big")
        + bytes((kind, flags))
        + stream_id.to_bytes(4, "big")
        + payload
    )


def writes(frames: Frames) -> Callable[[RawH2, int], Awaitable[None]]:
    """Writes so and goes on as one should (for `misbehaves_once`)."""

    async def act(peer: RawH2, stream_id: int) -> None:
        await peer.send(frames(stream_id))

    return act


def misbehaves_once(
    act: Callable[[RawH2, int], Awaitable[None]], settings: bytes | None = None
) -> tuple[Script, list[RawH2]]:
    """A script whose first request is met by `act`; what follows is answered well, on the same
    connection or on others. Also the connections that there were."""
    peers: list[RawH2] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawH2(reader, writer)
        peers.append(peer)
        first = len(peers) == 1
        await peer.open(settings if first else None)
        if first:
            await act(peer, await peer.request())
        await peer.serve()

    return script, peers
