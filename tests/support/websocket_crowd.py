"""Many WebSockets at once: a connection each over HTTP/1.1, many per connection over HTTP/2 (RFC
8441) and HTTP/3 (RFC 9220)."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from aioquic.quic.events import QuicEvent
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived
from websockets.asyncio.client import ClientConnection, connect

from tests.support.h3client import H3Client, h3_client
from tests.support.tunnels import CLOSE, TEXT, VERSION, Frames, close_payload, ws_frame

PER_CONNECTION = 100
HANDSHAKES_AT_ONCE = 50


class Chat(Protocol):
    """One WebSocket, as a client sees it."""

    async def say(self, text: str) -> None: ...

    async def hear(self) -> str: ...

    async def leave(self) -> int:
        """Close; returns the code that the other side has answered."""


class StreamChat:
    """A WebSocket on a stream."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._frames = Frames()
        self._heard: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def opened(self, fields: Any) -> None:
        if not self.status.done():
            self.status.set_result(int(dict(fields)[b":status"]))

    def take(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._heard.put_nowait(frame)

    async def say(self, text: str) -> None:
        self._send(ws_frame(TEXT, text.encode(), mask=os.urandom(4)))

    async def hear(self) -> str:
        kind, payload = await self._heard.get()
        assert kind == TEXT, kind
        return payload.decode()

    async def leave(self) -> int:
        self._send(ws_frame(CLOSE, close_payload(1000), mask=os.urandom(4)))
        kind, payload = await self._heard.get()
        assert kind == CLOSE, kind
        return int.from_bytes(payload[:2])


class ConnectionChat:
    """A WebSocket on a connection of its own."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, text: str) -> None:
        await self._socket.send(text)

    async def hear(self) -> str:
        return str(await self._socket.recv())

    async def leave(self) -> int:
        await self._socket.close()
        return self._socket.close_code or 0


class _H2:
    """An HTTP/2 connection; its streams are chats."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.initiate_connection()
        self._chats: dict[int, StreamChat] = {}
        self.ready = asyncio.Event()
        self._flush()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _run(self) -> None:
        while data := await self._reader.read(65536):
            for event in self._h2.receive_data(data):
                if isinstance(event, ResponseReceived):
                    self._chats[event.stream_id or 0].opened(event.headers)
                elif isinstance(event, DataReceived):
                    self._chats[event.stream_id or 0].take(event.data or b"")
                    credit = event.flow_controlled_length or 0
                    self._h2.acknowledge_received_data(credit, event.stream_id or 0)
                elif isinstance(event, RemoteSettingsChanged):
                    self.ready.set()
            self._flush()

    def chat(self, target: str) -> StreamChat:
        stream_id = self._h2.get_next_available_stream_id()

        def send(data: bytes) -> None:
            self._h2.send_data(stream_id, data)
            self._flush()

        found = self._chats[stream_id] = StreamChat(send)
        head = [
            (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"),
            (b":authority", b"localhost"), (b":path", target.encode()), VERSION,
        ]  # fmt: skip
        self._h2.send_headers(stream_id, head)
        self._flush()
        return found

    def close(self) -> None:
        self._task.cancel()
        self._writer.close()


class _H3(H3Client):
    """An HTTP/3 connection; its streams are chats."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chats: dict[int, StreamChat] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        super().quic_event_received(event)
        stream_id = getattr(event, "stream_id", None)
        if stream_id in self._chats:
            answer, chat = self.answers[stream_id], self._chats[stream_id]
            if answer.status is not None:
                chat.opened([(b":status", b"%d" % answer.status)])
            chat.take(bytes(answer.body))
            answer.body.clear()

    def chat(self, target: str) -> StreamChat:
        fields = ((b":protocol", b"websocket"), VERSION)
        stream_id = self.open(b"CONNECT", target.encode(), fields, end=False)
        found = self._chats[stream_id] = StreamChat(lambda data: self.send(stream_id, data))
        return found


@asynccontextmanager
async def websocket_crowd(
    version: str, port: int, target: str, count: int, tls: ssl.SSLContext
) -> AsyncIterator[list[Chat]]:
    """`count` open WebSockets of one client address."""
    async with AsyncExitStack() as stack:
        if version == "http/1.1":
            opening = asyncio.Semaphore(HANDSHAKES_AT_ONCE)

            async def one() -> Chat:
                url = f"wss://localhost:{port}{target}"
                async with opening:
                    socket = await connect(url, ssl=tls, compression=None, open_timeout=60)
                stack.push_async_callback(socket.close)
                return ConnectionChat(socket)

            yield list(await asyncio.gather(*(one() for _ in range(count))))
            return
        chats: list[StreamChat] = []
        closing: list[Callable[[], None]] = []
        for _ in range(0, count, PER_CONNECTION):
            if version == "h2":
                tls.set_alpn_protocols(["h2"])
                h2 = _H2(*await asyncio.open_connection("localhost", port, ssl=tls))
                closing.append(h2.close)
                await h2.ready.wait()
                make = h2.chat
            else:
                h3 = await stack.enter_async_context(h3_client(port, create=_H3))
                assert isinstance(h3, _H3)
                closing.append(h3.close)
                await h3.until(lambda: h3.h3.received_settings is not None)  # noqa: B023
                make = h3.chat
            chats += [make(target) for _ in range(min(PER_CONNECTION, count - len(chats)))]
        assert {await chat.status for chat in chats} == {200}
        try:
            yield list(chats)
        finally:
            for close in closing:  # all at once: each HTTP/3 connection drains for seconds
                close()
