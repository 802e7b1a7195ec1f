"""One connection that downloads files, over HTTP/3 or HTTP/0.9: the interop client's transport."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import SplitResult, urlsplit

from quicedge.http.h3 import H3Connection, H3Error, H3Settings, H3StreamError
from quicedge.http.h3_qlog import trace_codec
from quicedge.http.message import Fields
from quicedge.http.priority import Priority
from quicedge.quic import events
from quicedge.quic.connection import Connection
from quicedge.quic.ending import Ending
from quicedge.quic.settings import ALPN_H3
from quicedge.udp.socket import FourTuple, UdpSocket, open_socket

MAX_REQUESTS = 100
"""Concurrent requests, each with an open file; the rest are queued."""
CLOSE_WAIT = 1.0
"""Seconds at most that the socket stays open after closing, for packets still in flight."""


class DownloadError(Exception):
    """A download failed; the message says how, `ending` how the connection ended if it did."""

    def __init__(self, message: str, ending: Ending | None = None) -> None:
        super().__init__(message)
        self.ending = ending


class _Download(NamedTuple):
    url: SplitResult
    file: BinaryIO


class Downloader:
    """A client connection; `await connected` and `await fetch(...)`, then `await close()`.

    Content is written to its file as it arrives, and credited to the server once written.
    """

    def __init__(
        self, connection: Connection, address: tuple[Any, ...], alpn: str, directory: Path
    ) -> None:
        self.connection = connection
        self.received = 0
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._running: dict[int, _Download] = {}
        self._waiting: deque[str] = deque()
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self._all_done: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.update_keys_after: int | None = None
        """Bytes of content after which the keys are updated, once."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = UdpSocket(open_socket(family, "", 0))
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._socket.on_blocked = lambda: self._loop.add_writer(
            self._socket.fileno(), self._writable
        )
        connection.handler = self
        connection.connect(address, time.monotonic())
        self._h3: H3Connection | None = None
        if alpn == ALPN_H3:
            # Before the handshake is over, so that requests can be early data.
            self._h3 = H3Connection(
                connection, self, is_client=True, settings=H3Settings(), clock=time.monotonic
            )
            if connection.trace is not None:
                trace_codec(self._h3, connection.trace)

    # --- for the case ---------------------------------------------------------------------------

    async def fetch(self, urls: list[str]) -> None:
        """Download everything, many files at a time; raises DownloadError."""
        self._all_done = self._loop.create_future()
        self._waiting.extend(urls)
        if self._ended.done():
            self._fail("the connection is closed")
        self._start_waiting()
        self.flush()
        await self._all_done

    async def close(self) -> None:
        """Close the connection; the socket stays open until the closing period ends."""
        if self.connection.is_alive:
            self.connection.close()
            self.flush()
        try:
            await asyncio.wait_for(asyncio.shield(self._ended), CLOSE_WAIT)
        except TimeoutError:
            pass
        if self._timer is not None:
            self._timer.cancel()
        for download in self._running.values():
            download.file.close()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()

    def flush(self) -> None:
        """Deliver events, send pending packets, set the timer."""
        now = time.monotonic()
        connection = self.connection
        while (event := connection.poll_event()) is not None:
            self.handle_event(event)
        runs = connection.poll_transmit(now)
        for run in runs:
            path = FourTuple(run.path, b"", self._socket)
            self._socket.send_segments(run.data, run.segment, path, run.ecn)
        while (event := connection.poll_event()) is not None:
            self.handle_event(event)
        if self._timer is not None:
            self._timer.cancel()
        deadline = None if self._ended.done() else connection.poll_timeout()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._timer_fired)

    # --- the loop -------------------------------------------------------------------------------

    def _readable(self) -> None:
        now = time.monotonic()

        def receive(datagrams: list[bytes], path: FourTuple, ecn: int) -> None:
            for data in datagrams:
                self.connection.receive_datagram(data, path.remote, now, ecn)

        self._socket.receive(receive)
        self.flush()

    def _writable(self) -> None:
        if self._socket.flush():
            self._loop.remove_writer(self._socket.fileno())

    def _timer_fired(self) -> None:
        self.connection.handle_timeout(time.monotonic())
        self.flush()

    # --- requests -------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < MAX_REQUESTS:
            url = urlsplit(self._waiting.popleft())
            stream_id = self.connection.get_next_available_stream_id()
            file = (self._directory / Path(url.path).name).open("wb")
            self._running[stream_id] = _Download(url, file)
            if self._h3 is None:
                request = b"GET %b\r\n" % url.path.encode()
                self.connection.send_stream_data(stream_id, request, end_stream=True)
            else:
                head = [
                    (b":method", b"GET"),
                    (b":scheme", b"https"),
                    (b":authority", url.netloc.encode()),
                    (b":path", url.path.encode()),
                ]
                self._h3.send_headers(stream_id, head, end_stream=True)

    def _take(self, stream_id: int, data: bytes) -> None:
        download = self._running.get(stream_id)
        if download is not None:
            download.file.write(data)
        self.received += len(data)
        self.connection.consume(stream_id, len(data))
        if self.update_keys_after is not None and self.received >= self.update_keys_after:
            self.update_keys_after = None
            self.connection.request_key_update()

    def _complete(self, stream_id: int) -> None:
        download = self._running.pop(stream_id, None)
        if download is None:
            return
        download.file.close()
        self._start_waiting()
        if not self._running and self._all_done is not None and not self._all_done.done():
            self._all_done.set_result(None)

    def _fail(self, message: str, ending: Ending | None = None) -> None:
        for future in (self.connected, self._all_done):
            if future is not None and not future.done():
                future.set_exception(DownloadError(message, ending))
                future.exception()  # retrieved, whether or not anyone awaits it

    # --- quic.connection.ConnectionHandler ------------------------------------------------------

    def after_transmit(self) -> None:
        """Nothing is uploaded."""

    def handle_event(self, event: events.QuicEvent) -> None:
        try:
            if isinstance(event, events.StreamDataReceived):
                if self._h3 is not None:
                    self._h3.stream_data(event.stream_id, event.data, event.end_stream)
                    return
                self._take(event.stream_id, event.data)
                if event.end_stream:
                    self._complete(event.stream_id)
            elif isinstance(event, events.StreamReset):
                self._fail(f"stream {event.stream_id} was reset (0x{event.error_code:x})")
            elif isinstance(event, events.HandshakeCompleted):
                if not self.connected.done():
                    self.connected.set_result(None)
            elif isinstance(event, events.ConnectionTerminated):
                reason = event.reason_phrase or "no reason given"
                self._fail(
                    f"connection closed: {reason} (0x{event.error_code:x})", self.connection.ending
                )
                if not self._ended.done():
                    self._ended.set_result(None)
        except H3Error as error:
            self._fail(f"HTTP/3 error of the server: {error.reason}")
            self.connection.close(error_code=error.code, reason_phrase=error.reason)

    # --- http.h3.Handler ------------------------------------------------------------------------

    def on_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        status = int(fields[0][1])
        if status >= 300:
            self._fail(f"{self._running[stream_id].url.path}: status {status}")

    def on_data(self, stream_id: int, data: bytes) -> None:
        self._take(stream_id, data)

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        self.on_end(stream_id)

    def on_end(self, stream_id: int) -> None:
        self._complete(stream_id)

    def on_cut_short(self, stream_id: int) -> bool:
        return False

    def on_reset(self, stream_id: int, error_code: int) -> None:
        self._fail(f"stream {stream_id} was reset (0x{error_code:x})")

    def on_stop_sending(self, stream_id: int, error_code: int) -> None:
        """The request has already been sent."""

    def on_goaway(self, stream_id: int) -> None:
        """Requests already sent are still served."""

    def on_priority_update(self, element_id: int, priority: Priority) -> None:
        """Never sent by servers."""

    def on_field_section_too_large(self, stream_id: int, fields: Fields) -> None:
        self._fail("the response head is too large")

    def on_stream_error(self, error: H3StreamError) -> None:
        self._fail(f"HTTP/3 error of the server: {error.reason}")
        self.connection.close(error_code=error.code, reason_phrase=error.reason)

    def on_exhausted(self, reason: str) -> None:
        """The responses may still arrive; the codec closes a connection that exceeds its limits."""
