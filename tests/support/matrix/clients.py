"""Clients of all HTTP versions, one interface: `exchange` sends a case and returns the answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from quicedge.http.errors import H3ErrorCode
from quicedge.http.message import Fields
from tests.support.h3client import H3Client, h3_client
from tests.support.matrix.spec import Arrivals, Case, ClientFault, Got

TIMEOUT = 30.0
HOST = b"localhost"


def head_fields(case: Case) -> Fields:
    """The request fields of a case, without those of its version."""
    fields = list(case.fields)
    if case.body is not None and case.declared:
        fields.append((b"content-length", b"%d" % len(case.request_body)))
    if case.expects_continue:
        fields.append((b"expect", b"100-continue"))
    return fields


class Client(Protocol):
    """A connection to the edge."""

    async def exchange(self, case: Case, path: bytes, arrivals: Arrivals) -> Got:
        """Send the request; return when the response, or the connection, has ended.

        A client that leaves during its request does so when that has arrived at the origin.
        """


async def _end_is_due(case: Case, got: Got, arrivals: Arrivals) -> None:
    """Wait until a client ends its request early."""
    await arrivals.first.wait()
    while case.client.gives_up and got.status is None:
        await asyncio.sleep(0.001)


def _tls(alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


class Http1Client:
    """HTTP/1.1 by h11, one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._codec = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)

    async def exchange(self, case: Case, path: bytes, arrivals: Arrivals) -> Got:
        got = Got()
        fields = [(b"host", HOST), *head_fields(case)]
        if case.body is not None and not case.declared:
            fields.append((b"transfer-encoding", b"chunked"))
        self._send(h11.Request(method=case.method, target=path, headers=fields))
        uploading = asyncio.create_task(self._upload(case, got, arrivals))
        try:
            with contextlib.suppress(ConnectionError, h11.RemoteProtocolError):
                await self._receive(case, got)
        finally:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
        return got

    def _send(self, event: h11.Event) -> None:
        data = self._codec.send(event)
        if data:
            self._writer.write(data)

    async def _upload(self, case: Case, got: Got, arrivals: Arrivals) -> None:
        if case.expects_continue:
            while 100 not in got.interim:
                await asyncio.sleep(0.001)
        for piece in case.sent:
            self._send(h11.Data(data=piece))
            await self._writer.drain()
        if case.client is ClientFault.LEAVES_DURING_THE_REQUEST:
            await arrivals.first.wait()
            self._writer.transport.abort()
            return
        if case.client.ends_early:
            await _end_is_due(case, got, arrivals)
            while self._writer.transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            self._writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            arrivals.given_up.set()
            return
        self._send(h11.EndOfMessage(headers=case.trailers))
        await self._writer.drain()

    async def _receive(self, case: Case, got: Got) -> None:
        while True:
            event = self._codec.next_event()
            if event is h11.NEED_DATA:
                self._codec.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.InformationalResponse):
                got.interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                got.status, got.fields = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                got.body += event.data
                if case.client is ClientFault.LEAVES_DURING_THE_RESPONSE:
                    self._writer.transport.abort()
                    return
            elif isinstance(event, h11.EndOfMessage):
                got.trailers, got.complete = list(event.headers), True
                return
            else:
                return


class Http2Client:
    """HTTP/2 by h2, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        configuration = H2Configuration(client_side=True, header_encoding=None)
        self._codec = H2Connection(configuration)
        self._codec.initiate_connection()
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._codec.data_to_send())

    async def exchange(self, case: Case, path: bytes, arrivals: Arrivals) -> Got:
        got = Got()
        stream_id = self._codec.get_next_available_stream_id()
        head = [(b":method", case.method), (b":scheme", b"https"), (b":authority", HOST),
                (b":path", path), *head_fields(case)]  # fmt: skip
        self._codec.send_headers(stream_id, head, end_stream=case.body is None)
        self._flush()
        uploading = asyncio.create_task(self._upload(case, stream_id, got, arrivals))
        try:
            with contextlib.suppress(ConnectionError):
                await self._receive(case, stream_id, got)
        finally:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
        return got

    async def _upload(self, case: Case, stream_id: int, got: Got, arrivals: Arrivals) -> None:
        if case.body is None:
            return
        if case.expects_continue:
            while 100 not in got.interim:
                await asyncio.sleep(0.001)
        for piece in case.sent:
            while piece:
                while not (room := self._codec.local_flow_control_window(stream_id)):
                    await asyncio.sleep(0.001)
                size = min(room, len(piece), self._codec.max_outbound_frame_size)
                self._codec.send_data(stream_id, piece[:size])
                piece = piece[size:]
                self._flush()
            await self._writer.drain()
        if case.client.ends_early:
            await _end_is_due(case, got, arrivals)
        if case.client is ClientFault.LEAVES_DURING_THE_REQUEST:
            await arrivals.first.wait()
            self._codec.reset_stream(stream_id, 8)
        elif case.trailers:
            self._codec.send_headers(stream_id, case.trailers, end_stream=True)
        else:
            self._codec.end_stream(stream_id)
        self._flush()
        arrivals.given_up.set()
        if case.client is ClientFault.LEAVES_DURING_THE_REQUEST:
            self._writer.transport.close()

    async def _receive(self, case: Case, stream_id: int, got: Got) -> None:
        while True:
            data = await self._reader.read(65536)
            if not data:
                return
            for event in self._codec.receive_data(data):
                if isinstance(event, ConnectionTerminated) and event.error_code:
                    return
                if getattr(event, "stream_id", None) != stream_id:
                    continue
                if isinstance(event, InformationalResponseReceived):
                    got.interim.append(int(event.headers[0][1]))
                elif isinstance(event, ResponseReceived):
                    got.status = int(event.headers[0][1])
                    got.fields = list(event.headers[1:])
                elif isinstance(event, DataReceived):
                    got.body += event.data
                    self._codec.acknowledge_received_data(event.flow_controlled_length, stream_id)
                    if case.client is ClientFault.LEAVES_DURING_THE_RESPONSE:
                        self._codec.reset_stream(stream_id, 8)
                        self._flush()
                        return
                elif isinstance(event, TrailersReceived):
                    got.trailers = list(event.headers)
                elif isinstance(event, StreamEnded):
                    got.complete = True
                    self._flush()
                    return
                elif isinstance(event, StreamReset):
                    return
            self._flush()


class Http3Client:
    """HTTP/3 by stock aioquic."""

    def __init__(self, client: H3Client) -> None:
        self._client = client

    async def exchange(self, case: Case, path: bytes, arrivals: Arrivals) -> Got:
        client = self._client
        stream_id = client.open(case.method, path, head_fields(case), end=case.body is None)
        answer = client.answers[stream_id]
        if case.body is not None:
            if case.expects_continue:
                await client.until(lambda: 100 in answer.interim)
            for piece in case.sent:
                client.send(stream_id, piece)
            if case.client is ClientFault.LEAVES_DURING_THE_REQUEST:
                await arrivals.first.wait()
                client.cancel(stream_id)
                return Got()
            if case.client.ends_early:
                await arrivals.first.wait()
                await client.until(lambda: not case.client.gives_up or answer.status is not None)
            if case.client is ClientFault.RESETS_ITS_UPLOAD:
                client.quic.reset_stream(stream_id, H3ErrorCode.NO_ERROR)
                client.transmit()
            elif case.trailers:
                client.h3.send_headers(stream_id, case.trailers, end_stream=True)
                client.transmit()
            else:
                client.send(stream_id, b"", end=True)
            arrivals.given_up.set()
        if case.client is ClientFault.LEAVES_DURING_THE_RESPONSE:
            await client.until(lambda: bool(answer.body))
            client.cancel(stream_id)
        else:
            await client.answer(stream_id)
        complete = answer.reset is None and client.closed is None and answer.over.is_set()
        return Got(answer.interim, answer.status, answer.fields, answer.body, answer.trailers,
                   complete)  # fmt: skip


async def _open_tcp(port: int, alpn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=_tls(alpn), server_hostname="localhost"
    )


@contextlib.asynccontextmanager
async def http1(port: int) -> AsyncIterator[Client]:
    reader, writer = await _open_tcp(port, "http/1.1")
    yield Http1Client(reader, writer)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def http2(port: int) -> AsyncIterator[Client]:
    reader, writer = await _open_tcp(port, "h2")
    yield Http2Client(reader, writer)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def http3(port: int) -> AsyncIterator[Client]:
    async with h3_client(port) as client:
        yield Http3Client(client)


CLIENTS: dict[str, Callable[[int], contextlib.AbstractAsyncContextManager[Client]]] = {
    "http/1.1": http1,
    "h2": http2,
    "h3": http3,
}


async def exchange(version: str, port: int, case: Case, path: bytes, arrivals: Arrivals) -> Got:
    """One exchange on a new connection."""
    async with CLIENTS[version](port) as client, asyncio.timeout(TIMEOUT):
        return await client.exchange(case, path, arrivals)
