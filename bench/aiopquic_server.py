"""aiopquic with the HTTP/3 that it leaves to its users; answers `/download` and `/upload` itself.

It runs on an interpreter of its own (Python 3.12 or newer). Usage: aiopquic_server.py PORT CERT KEY
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from typing import Any

import pylsqpack
from aiopquic.asyncio import QuicConnectionProtocol, serve
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import StreamDataReceived, StreamReset

from bench import answers

CONTROL = 3
"""The first unidirectional stream of a server."""
SETTINGS = b"\x00\x04\x00"
"""The type of the control stream, and settings without any: QPACK has no dynamic table."""
DATA, HEADERS = 0, 1
WHOLE = 1 << 20
"""Bytes up to which a response is written at once."""


def varint(value: int) -> bytes:
    if value < 0x40:
        return value.to_bytes(1)
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2)
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4)
    return (value | 0xC000000000000000).to_bytes(8)


def read_varint(data: bytearray, at: int) -> tuple[int, int] | None:
    """A number and where it ends; None if it is not complete."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return None
    mask = (1 << (size * 8 - 2)) - 1
    return int.from_bytes(data[at : at + size]) & mask, at + size


class Request:
    """What has arrived of one."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.left_of_data = 0
        self.fields: dict[bytes, bytes] = {}
        self.digest = hashlib.sha256()
        self.size = 0


class Server(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._decoder = pylsqpack.Decoder(0, 0)
        self._encoder = pylsqpack.Encoder()
        self._requests: dict[int, Request] = {}
        self._has_settings = False
        self._tasks: set[asyncio.Task[None]] = set()

    def quic_event_received(self, event: object) -> None:
        if isinstance(event, StreamReset):
            self._requests.pop(event.stream_id, None)
        if not isinstance(event, StreamDataReceived) or event.stream_id % 4:
            return  # the client's control and QPACK streams have nothing to say
        if not self._has_settings:
            self._has_settings = True
            self._quic.send_stream_data(CONTROL, SETTINGS)
        request = self._requests.setdefault(event.stream_id, Request())
        request.buffer += event.data
        self._read(event.stream_id, request)
        if event.end_stream:
            del self._requests[event.stream_id]
            self._answer(event.stream_id, request)

    def _read(self, stream_id: int, request: Request) -> None:
        buffer, at = request.buffer, 0
        while True:
            if request.left_of_data:
                piece = memoryview(buffer)[at : at + request.left_of_data]
                request.digest.update(piece)
                request.size += len(piece)
                request.left_of_data -= len(piece)
                at += len(piece)
                piece.release()
            kind = read_varint(buffer, at)
            length = None if kind is None else read_varint(buffer, kind[1])
            if kind is None or length is None:
                break
            if kind[0] == DATA:
                request.left_of_data, at = length
                continue
            end = length[1] + length[0]
            if end > len(buffer):
                break
            if kind[0] == HEADERS:
                section = bytes(buffer[length[1] : end])
                request.fields.update(self._decoder.feed_header(stream_id, section)[1])
            at = end
        del buffer[:at]

    def _answer(self, stream_id: int, request: Request) -> None:
        if request.fields[b":method"] != b"GET":
            content = answers.receipt(request.digest.hexdigest(), request.size)
            self._respond(stream_id, content)
            return
        size = answers.download_size(request.fields[b":path"].decode())
        if size <= WHOLE:
            self._respond(stream_id, answers.body(size))
            return
        task = asyncio.get_running_loop().create_task(self._send_long(stream_id, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _head(self, stream_id: int, size: int) -> bytes:
        fields = [(b":status", b"200"), (b"content-length", b"%d" % size)]
        section = self._encoder.encode(stream_id, fields)[1]
        return varint(HEADERS) + varint(len(section)) + section + varint(DATA) + varint(size)

    def _respond(self, stream_id: int, content: bytes) -> None:
        head = self._head(stream_id, len(content))
        self._quic.send_stream_data(stream_id, head + content, end_stream=True)

    async def _send_long(self, stream_id: int, size: int) -> None:
        send = self._quic.send_stream_data_drained
        await send(stream_id, self._head(stream_id, size))
        for at in range(0, size, len(answers.BLOCK)):
            piece = answers.BLOCK[: size - at]
            await send(stream_id, piece, end_stream=at + len(piece) >= size)


async def main() -> None:
    port, certificate, key = sys.argv[1:]
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        certificate_file=certificate,
        private_key_file=key,
        max_connections=20_000,
    )
    await serve("127.0.0.1", int(port), configuration=configuration, create_protocol=Server)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
