"""A small HTTP/3 client with measurements: one connection, one request at a time."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from quicedge.cli.addresses import Addresses
from quicedge.cli.exitcodes import ExitCode
from quicedge.config import limits
from quicedge.http.errors import H3ErrorCode, error_name
from quicedge.http.h3 import H3Connection, H3Error, H3Settings, H3StreamError
from quicedge.http.message import Field, Fields
from quicedge.http.priority import Priority
from quicedge.http.semantics import response_has_body
from quicedge.http.validation import MessageError, parse_content_length, parse_status
from quicedge.quic import events
from quicedge.quic.connection import Connection
from quicedge.quic.ending import Ending
from quicedge.quic.settings import client_configuration
from quicedge.telemetry.text import escape

# Errors are reported by FetchError; suppress aioquic's own log output.
logging.getLogger("quic").addHandler(logging.NullHandler())

_CERTIFICATE_ERRORS = frozenset(0x100 + alert for alert in (42, 43, 44, 45, 46, 48))
"""CRYPTO_ERROR (RFC 9001 section 4.8) with an alert about a certificate (RFC 8446 section 6.2)."""
_CONNECTION_REFUSED = 0x02
"""RFC 9000 section 20.1."""
_CRYPTO_ERRORS = range(0x100, 0x200)
_BAD_CERTIFICATE = "; --cacert FILE names a CA to trust, -k trusts anyone"


class FetchError(Exception):
    """The request failed; the message is escaped, as it may contain text from the server."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.RECEIVE_ERROR) -> None:
        super().__init__(escape(message))
        self.exit_code = exit_code


@dataclass
class Timings:
    """Seconds since the client started to connect; None when not reached."""

    handshake: float | None = None
    first_byte: float | None = None
    total: float | None = None


@dataclass
class Answer:
    """A response and its timings."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    interim: list[tuple[int, Fields]] = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    body_bytes: int = 0
    timings: Timings = field(default_factory=Timings)


def _check_ca_file(name: str) -> None:
    """Raise FetchError for a file without a CA: the TLS engine would fail too late."""
    try:
        if x509.load_pem_x509_certificates(Path(name).read_bytes()):
            return
        reason = "contains no certificate"
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:
        reason = "contains no PEM certificate"
    raise FetchError(f"--cacert {name}: {reason}", ExitCode.CA_FILE_UNUSABLE)


def _dialled(address: tuple[Any, ...]) -> tuple[str, int]:
    """A socket address for asyncio, which expects the scope as part of the host."""
    host, port = str(address[0]), int(address[1])
    if len(address) == 4 and address[3] and "%" not in host:
        host = f"{host}%{address[3]}"
    return host, port


def termination_error(event: events.ConnectionTerminated, ending: Ending | None) -> FetchError:
    """Describe in actionable terms why a connection ended."""
    if ending is Ending.IDLE_TIMEOUT:
        return FetchError("connection timed out: the server stopped responding", ExitCode.TIMEOUT)
    if ending is Ending.HANDSHAKE_TIMEOUT:
        return FetchError("connection timed out: no response to the handshake", ExitCode.TIMEOUT)
    reason = event.reason_phrase
    if ending is Ending.ABORTED:
        return FetchError(f"connection aborted: {reason}", ExitCode.COULDNT_CONNECT)
    application = event.frame_type is None
    name = error_name(event.error_code, application=application)
    exit_code, hint = ExitCode.RECEIVE_ERROR, ""
    if application:
        pass
    elif event.error_code in _CERTIFICATE_ERRORS:
        exit_code, hint = ExitCode.CERTIFICATE_NOT_VERIFIED, _BAD_CERTIFICATE
    elif event.error_code in _CRYPTO_ERRORS:
        exit_code = ExitCode.TLS_CONNECT_ERROR
    elif event.error_code == _CONNECTION_REFUSED:
        exit_code = ExitCode.COULDNT_CONNECT
    said = f"{name}: {reason}" if reason else name
    return FetchError(f"connection closed: {said}{hint}", exit_code)


class Client(asyncio.DatagramProtocol):
    """`async with Client.connect(...)`, then `fetch`. Raises FetchError.

    `on_body` of `fetch` gets content as it arrives; flow control follows it. `on_head` sees the
    final response head before that, and may raise FetchError to end it there.
    """

    def __init__(self, connection: Connection, address: tuple[Any, ...]) -> None:
        self.connection = connection
        self.timings = Timings()
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._h3: H3Connection | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._done: asyncio.Future[None] | None = None
        self._answer = Answer()
        self._on_body: Callable[[bytes], None] = lambda data: None
        self._on_head: Callable[[Answer], None] = lambda answer: None
        self._method = ""
        self._stream_id = -1
        self._length: int | None = None
        """Declared content length of the current response; None when not declared."""
        connection.handler = self

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        ca_file: str | None = None,
        verify: bool = True,
        timeout: float = 10.0,
        server_name: str | None = None,
        addresses: Addresses | None = None,
    ) -> Client:
        """Connect to an HTTP/3 server and complete the handshake within `timeout` seconds.

        `server_name`: SNI and expected certificate name, if different from the host.
        """
        if verify and ca_file is not None:
            _check_ca_file(ca_file)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout(timeout):
                found = await (addresses or Addresses()).find(host, port)
        except TimeoutError:
            raise FetchError(
                f"{host}: name resolution timed out after {timeout:g} s", ExitCode.TIMEOUT
            ) from None
        except OSError as error:
            message = f"{host}: {error.strerror or error}"
            raise FetchError(message, ExitCode.COULDNT_RESOLVE_HOST) from error
        name = server_name or host.partition("%")[0]
        last = FetchError(f"{host}: no address", ExitCode.COULDNT_RESOLVE_HOST)
        for tried, address in enumerate(found):
            # Each attempt gets an equal share of the remaining time.
            share = max(deadline - loop.time(), 0.0) / (len(found) - tried)
            try:
                return await cls._connect(name, address, ca_file, verify, share)
            except FetchError as error:
                last = error
        raise last

    @classmethod
    async def _connect(
        cls, name: str, address: tuple[Any, ...], ca_file: str | None, verify: bool, timeout: float
    ) -> Client:
        loop = asyncio.get_running_loop()
        configuration = client_configuration(
            name, ca_file=ca_file, verify_mode=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        )
        connection = Connection(
            configuration=configuration, now=time.monotonic(), handshake_timeout=timeout
        )
        client = cls(connection, address)
        try:
            await loop.create_datagram_endpoint(lambda: client, remote_addr=_dialled(address))
        except OSError as error:
            message = f"{address[0]}: {error.strerror or error}"
            raise FetchError(message, ExitCode.COULDNT_CONNECT) from error
        connection.connect(address, time.monotonic())
        client._flush()
        try:
            await client._ready
        except BaseException:
            client._shut()
            raise
        return client

    async def fetch(
        self,
        method: str,
        authority: str,
        path: str,
        fields: list[Field] | None = None,
        body: AsyncIterator[bytes] | bytes = b"",
        on_body: Callable[[bytes], None] = lambda data: None,
        timeout: float = 300.0,
        on_head: Callable[[Answer], None] = lambda answer: None,
    ) -> Answer:
        """Send a request and wait for the whole response."""
        assert self._h3 is not None
        self._answer, self._on_body, self._on_head = Answer(), on_body, on_head
        self._method, self._length = method, None
        self._done = self._loop.create_future()
        started = time.monotonic()
        stream_id = self._stream_id = self.connection.get_next_available_stream_id()
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            *(fields or []),
        ]
        if isinstance(body, bytes) and body and not any(n == b"content-length" for n, _ in head):
            # Many origins reject bodies of unknown length.
            head.append((b"content-length", b"%d" % len(body)))
        self._started_request = started
        self._h3.send_headers(stream_id, head, end_stream=body == b"")
        self._flush()
        keeping = self._loop.create_task(self._keep_alive())
        try:
            async with asyncio.timeout(timeout):
                if isinstance(body, bytes):
                    if body:
                        self._h3.send_data(stream_id, body, end_stream=True)
                        self._flush()
                else:
                    await self._upload(stream_id, body)
                await self._done
        except TimeoutError:
            message = f"response timed out after {timeout:g} s"
            raise FetchError(message, ExitCode.TIMEOUT) from None
        finally:
            keeping.cancel()
        answer = self._answer
        answer.timings.handshake = self.timings.handshake
        answer.timings.total = time.monotonic() - started
        return answer

    @property
    def answer(self) -> Answer:
        """The latest response, possibly incomplete."""
        return self._answer

    async def _keep_alive(self) -> None:
        """Keep the connection open while a response is outstanding, as RFC 9114 section 5.1
        expects of clients."""
        while True:
            await asyncio.sleep(self.connection.idle.timeout / 2)
            self.connection.send_ping(0)
            self._flush()

    async def _upload(self, stream_id: int, body: AsyncIterator[bytes]) -> None:
        assert self._h3 is not None
        async for data in body:
            while self.connection.streams.unsent(stream_id) > limits.SEND_BUFFER_HIGH:
                if self._done is not None and self._done.done():
                    return
                self._room = self._loop.create_future()
                await self._room
            if not self.connection.streams.can_send(stream_id):
                return
            self._h3.send_data(stream_id, data)
            self._flush()
        if self.connection.streams.can_send(stream_id):
            self._h3.send_data(stream_id, b"", end_stream=True)
            self._flush()

    _room: asyncio.Future[None] | None = None
    _started_request = 0.0

    async def close(self) -> None:
        """Close the connection and the socket."""
        if self.connection.is_alive:
            self.connection.close(error_code=H3ErrorCode.NO_ERROR)
            self._flush()
        self._shut()

    def _shut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if not self._ready.done():
            self._ready.cancel()

    # --- asyncio.DatagramProtocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.connection.remote_ids.is_stateless_reset(data):
            self._fail("connection closed: stateless reset by the server")
            event = events.ConnectionTerminated(
                error_code=0, frame_type=0, reason_phrase="stateless reset"
            )
            self.connection.close_silently(event, Ending.STATELESS_RESET)
            self._shut()
            return
        self.connection.receive_datagram(data, self._address, time.monotonic())
        self._flush()

    def error_received(self, exc: Exception) -> None:
        # An ICMP error is a hint at most (RFC 9000 section 14.2.1), but before the handshake
        # "connection refused" is the useful answer.
        if not self._ready.done():
            reason = exc.strerror if isinstance(exc, OSError) else exc
            host, port = self._address[:2]
            message = f"{host}: UDP port {port}: {reason}"
            self._ready.set_exception(FetchError(message, ExitCode.COULDNT_CONNECT))

    def _flush(self) -> None:
        now = time.monotonic()
        connection = self.connection
        while (event := connection.poll_event()) is not None:
            self.handle_event(event)
        if self._transport is None or self._transport.is_closing():
            return
        for run in connection.poll_transmit(now):
            for at in range(0, len(run.data), run.segment):
                self._transport.sendto(run.data[at : at + run.segment])
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        deadline = connection.poll_timeout()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._timer_fired)

    def _timer_fired(self) -> None:
        self.connection.handle_timeout(time.monotonic())
        self._flush()

    # --- quic.connection.ConnectionHandler -------------------------------------------------------

    def after_transmit(self) -> None:
        """Uploads look for room in `_flush`."""

    def handle_event(self, event: events.QuicEvent) -> None:
        try:
            if isinstance(event, events.ProtocolNegotiated):
                self._h3 = H3Connection(
                    self.connection,
                    self,
                    is_client=True,
                    settings=H3Settings(),
                    clock=time.monotonic,
                )
            elif isinstance(event, events.HandshakeCompleted):
                self.timings.handshake = time.monotonic() - self._started
                if not self._ready.done():
                    self._ready.set_result(None)
            elif isinstance(event, events.ConnectionTerminated):
                self._terminated(event)
            elif self._h3 is not None:
                if isinstance(event, events.StreamDataReceived):
                    self._h3.stream_data(event.stream_id, event.data, event.end_stream)
                elif isinstance(event, events.StreamReset):
                    self._h3.stream_reset(event.stream_id, event.error_code)
                elif isinstance(event, events.StopSendingReceived):
                    self._h3.stop_sending(event.stream_id, event.error_code)
        except H3Error as error:
            name = error_name(error.code, application=True)
            self._fail(f"the server broke HTTP/3: {error.reason} ({name})", ExitCode.HTTP3_ERROR)
            self.connection.close(error_code=error.code, reason_phrase=error.reason)

    def _terminated(self, event: events.ConnectionTerminated) -> None:
        error = termination_error(event, self.connection.ending)
        if not self._ready.done():
            self._ready.set_exception(error)
        self._fail(str(error), error.exit_code)

    def _fail(self, message: str, exit_code: ExitCode = ExitCode.RECEIVE_ERROR) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(FetchError(message, exit_code))

    # --- http.h3.Handler --------------------------------------------------------------------------

    def on_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        if stream_id != self._stream_id:
            return
        try:
            status = parse_status(fields)
            if status < 200:
                self._answer.interim.append((status, fields[1:]))
                return
            self._expect_length(stream_id, status, fields)
        except MessageError as error:
            raise H3StreamError(H3ErrorCode.MESSAGE_ERROR, str(error), stream_id) from error
        self._answer.status, self._answer.fields = status, fields[1:]
        self._answer.timings.first_byte = time.monotonic() - self._started_request
        try:
            self._on_head(self._answer)
        except FetchError as error:
            self._fail(str(error), error.exit_code)

    def _expect_length(self, stream_id: int, status: int, fields: Fields) -> None:
        """RFC 9114 section 4.1.2: content that is not content-length long is malformed."""
        length: int | None = None
        for name, value in fields:
            if name == b"content-length":
                length = parse_content_length(value, length)
        assert self._h3 is not None
        if length is not None and response_has_body(self._method.encode(), status):
            self._length = length
            self._h3.expect_length(stream_id, length)

    def on_data(self, stream_id: int, data: bytes) -> None:
        if stream_id == self._stream_id:
            self._answer.body_bytes += len(data)
            try:
                self._on_body(data)
            except OSError as error:
                reason = error.strerror or str(error)
                self._fail(f"cannot write the response: {reason}", ExitCode.WRITE_ERROR)
        self.connection.consume(stream_id, len(data))

    def on_trailers(self, stream_id: int, fields: Fields) -> None:
        if stream_id == self._stream_id:
            self._answer.trailers = fields
        self.on_end(stream_id)

    def on_end(self, stream_id: int) -> None:
        if stream_id == self._stream_id and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def on_cut_short(self, stream_id: int) -> bool:
        return False

    def on_reset(self, stream_id: int, error_code: int) -> None:
        if stream_id == self._stream_id:
            name = error_name(error_code, application=True)
            self._fail(f"the server reset the stream ({name})", ExitCode.HTTP3_ERROR)

    def on_stop_sending(self, stream_id: int, error_code: int) -> None:
        """The response, if any, follows; the upload ends by itself."""

    def on_goaway(self, stream_id: int) -> None:
        """One request was asked for; it is served or rejected."""

    def on_priority_update(self, element_id: int, priority: Priority) -> None:
        """Never sent by servers."""

    def on_field_section_too_large(self, stream_id: int, fields: Fields) -> None:
        if stream_id == self._stream_id:
            self._fail("the response head is too large", ExitCode.HTTP3_ERROR)

    def on_stream_error(self, error: H3StreamError) -> None:
        """A response that is none: the connection may go on."""
        reason, exit_code = error.reason, ExitCode.HTTP3_ERROR
        if self._length is not None and error.code == H3ErrorCode.MESSAGE_ERROR:
            reason, exit_code = f"{reason} of {self._length} bytes", ExitCode.PARTIAL_FILE
        if error.stream_id == self._stream_id:
            self._fail(f"malformed response: {reason}", exit_code)
        if self.connection.streams.can_receive(error.stream_id):
            self.connection.stop_stream(error.stream_id, error.code)
        if self.connection.streams.can_reset(error.stream_id):
            self.connection.reset_stream(error.stream_id, error.code)

    def on_exhausted(self, reason: str) -> None:
        """What was asked for may still come; a server that overdoes it is closed by the codec."""
