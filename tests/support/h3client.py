"""A stock aioquic client that sends requests in parts and records responses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from quicedge.http.frames import FrameType, decode_varint
from quicedge.http.message import Field, Fields

TIMEOUT = 15.0
_SERVER_CONTROL = 3
"""The stream that the edge opens first."""


class Codec(H3Connection):
    def _check_content_length(self, stream: Any) -> None:
        """aioquic takes content-length in answers to HEAD and in 304 for malformed."""


class Answer:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.interim: list[int] = []
        self.status: int | None = None
        self.fields: Fields = []
        self.trailers: Fields = []
        self.body = bytearray()
        self.reset: int | None = None
        self.stopped: int | None = None
        """The code of the server's STOP_SENDING."""
        self.over = asyncio.Event()

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


class H3Client(QuicConnectionProtocol):
    codec: ClassVar[type[Codec]] = Codec
    control_stream = 2
    """Its control stream: the first unidirectional one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quic = self._quic
        """The stock connection, for what its HTTP/3 layer does not offer."""
        self.h3 = self.codec(self.quic)
        self.answers: dict[int, Answer] = {}
        self.closed: ConnectionTerminated | None = None
        self._control = b""
        self._unread: list[Any] | None = None

    def stop_reading(self) -> None:
        """Leave datagrams unread: nothing is acknowledged, no credit is granted."""
        self._unread = []

    def resume_reading(self) -> None:
        unread, self._unread = self._unread or [], None
        for data, address in unread:
            self.datagram_received(data, address)

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        if self._unread is not None:
            self._unread.append((data, addr))
        else:
            super().datagram_received(data, addr)

    def grant_no_more(self) -> None:
        """Acknowledge what comes, but never raise a flow-control limit again."""
        self._quic._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
        self._quic._write_connection_limits = lambda **_: None  # type: ignore[method-assign]

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.closed = event
            for answer in self.answers.values():
                answer.over.set()
        elif isinstance(event, StreamReset) and event.stream_id in self.answers:
            answer = self.answers[event.stream_id]
            answer.reset = event.error_code
            answer.over.set()
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.answers:
            self.answers[event.stream_id].stopped = event.error_code
        elif isinstance(event, StreamDataReceived) and event.stream_id == _SERVER_CONTROL:
            self._control += event.data
        for item in self.h3.handle_event(event):
            found = self.answers.get(getattr(item, "stream_id", -1))
            if found is None:
                continue
            if isinstance(item, HeadersReceived):
                status = dict(item.headers).get(b":status")
                if status is None:
                    found.trailers = item.headers
                elif status[:1] == b"1":
                    found.interim.append(int(status))
                else:
                    found.status, found.fields = int(status), item.headers[1:]
            elif isinstance(item, DataReceived):
                found.body += item.data
            if getattr(item, "stream_ended", False):
                found.over.set()

    def open(
        self,
        method: bytes,
        path: bytes,
        fields: Sequence[Field] = (),
        *,
        authority: bytes = b"localhost",
        end: bool = True,
        hold: bool = False,
    ) -> int:
        """Send a request head; returns its stream. `hold`: it goes with what is sent next."""
        stream_id = self._quic.get_next_available_stream_id()
        self.answers[stream_id] = Answer()
        head = [
            (b":method", method), (b":scheme", b"https"), (b":authority", authority),
            (b":path", path), *fields,
        ]  # fmt: skip
        self.h3.send_headers(stream_id, head, end_stream=end)
        if not hold:
            self.transmit()
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.h3.send_data(stream_id, data, end)
        self.transmit()

    def cancel(self, stream_id: int) -> None:
        """Give a request up as browsers do."""
        self._quic.reset_stream(stream_id, 0x10C)
        self._quic.stop_stream(stream_id, 0x10C)
        self.transmit()

    def send_raw(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Bytes of a stream, whatever they are."""
        self.answers.setdefault(stream_id, Answer())
        self._quic.send_stream_data(stream_id, data, end_stream=end)
        self.transmit()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what events bring about."""
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def told_to_leave(self) -> bool:
        """Whether GOAWAY came, for which aioquic has no event."""
        at = 1  # behind the stream's type
        while at < len(self._control):
            kind, at = decode_varint(self._control, at)
            size, at = decode_varint(self._control, at)
            at += size
            if kind == FrameType.GOAWAY:
                return True
        return False

    def send_fin(self, stream_id: int) -> None:
        """End the stream without a frame."""
        self._quic.send_stream_data(stream_id, b"", end_stream=True)
        self.transmit()

    async def answer(self, stream_id: int) -> Answer:
        found = self.answers[stream_id]
        async with asyncio.timeout(TIMEOUT):
            await found.over.wait()
        return found

    async def ask(
        self, method: bytes, path: bytes, fields: Sequence[Field] = (), body: bytes = b"",
        authority: bytes = b"localhost",
    ) -> Answer:  # fmt: skip
        """A whole request and its answer."""
        stream_id = self.open(method, path, fields, authority=authority, end=not body)
        if body:
            self.send(stream_id, body, end=True)
        return await self.answer(stream_id)


@asynccontextmanager
async def h3_client(
    port: int, host: str = "127.0.0.1", create: type[H3Client] = H3Client, **options: Any
) -> AsyncIterator[H3Client]:
    """A connection to an edge on loopback; `options` as aioquic's configuration has them."""
    given = {"verify_mode": ssl.CERT_NONE, "server_name": "localhost", **options}
    configuration = QuicConfiguration(alpn_protocols=["h3"], **given)
    async with connect(host, port, configuration=configuration, create_protocol=create) as client:
        assert isinstance(client, H3Client)
        yield client
