"""A stock aioquic client that downloads from the embedded origin and checks every byte."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset

from bench import answers

SIZE = 100
EXPECTED = answers.body(SIZE)


class DownloadClient(QuicConnectionProtocol):
    """Downloads over one connection, one future each."""

    _http: H3Connection | None = None
    broken: str | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
            self._waiting: dict[int, tuple[asyncio.Future[None], list[bytes], int]] = {}
        elif isinstance(event, ConnectionTerminated | StreamReset):
            self.fail(repr(event))
        if self._http is not None:
            for item in self._http.handle_event(event):
                self._handle(item)

    def fail(self, reason: str) -> None:
        """The connection has ended."""
        self.broken = reason
        for future, *_ in getattr(self, "_waiting", {}).values():
            if not future.done():
                future.set_exception(RuntimeError(reason))

    def _handle(self, item: H3Event) -> None:
        if not isinstance(item, HeadersReceived | DataReceived):
            return
        entry = self._waiting.get(item.stream_id)
        if entry is None:
            return
        future, pieces, size = entry
        if isinstance(item, HeadersReceived):
            status = dict(item.headers).get(b":status")
            if status != b"200" and not future.done():
                future.set_exception(RuntimeError(f"status {status!r}"))
        else:
            pieces.append(item.data)
        if item.stream_ended and not future.done():
            del self._waiting[item.stream_id]
            if b"".join(pieces) == (EXPECTED if size == SIZE else answers.body(size)):
                future.set_result(None)
            else:
                future.set_exception(RuntimeError("wrong content"))

    def ping(self) -> None:
        self._quic.send_ping(0)
        self.transmit()

    def request(self, size: int = SIZE) -> asyncio.Future[None]:
        assert self._http is not None
        if self.broken is not None:
            raise RuntimeError(self.broken)
        stream_id = self._quic.get_next_available_stream_id()
        future = self._loop.create_future()
        self._waiting[stream_id] = future, [], size
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"),
                  (b":path", b"/download?size=%d" % size), (b"user-agent", b"bench")]  # fmt: skip
        self._http.send_headers(stream_id, fields, end_stream=True)
        self.transmit()
        return future


def download_client(port: int) -> Any:
    """A connection to a server on loopback, as a context manager."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name="localhost",
        max_datagram_size=1452, idle_timeout=120,
    )  # fmt: skip
    return connect("127.0.0.1", port, configuration=configuration, create_protocol=DownloadClient)
