"""Origins that play their side of a case over HTTP/1.1 (h11) and HTTP/2 (h2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from tests.support.matrix.spec import Arrivals, Case, OriginFault, Seen
from tests.support.origins import H2Peer, Script

MALFORMED = b"HTTP/1.1 200 OK\r\nX Frame: DENY\r\ncontent-length: 0\r\n\r\n"


def _response_fields(case: Case) -> list[tuple[bytes, bytes]]:
    fields = list(case.response_fields)
    if case.response_declared and case.status not in (204, 304):
        fields.append((b"content-length", b"%d" % len(b"".join(case.response))))
    return fields


def http1(case: Case, seen: Arrivals) -> Script:
    """Play a case for every request on a connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = Seen()
            codec = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            try:
                await _play_http1(case, request, seen, codec, reader, writer)
            except (ConnectionError, h11.RemoteProtocolError):
                request.aborted = True
                return
            if codec.our_state is not h11.DONE or codec.their_state is not h11.DONE:
                return
            if codec.trailing_data[0]:
                raise AssertionError(f"bytes behind the request: {codec.trailing_data[0]!r}")

    return script


async def _play_http1(
    case: Case,
    request: Seen,
    seen: Arrivals,
    codec: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    async def send(event: h11.Event) -> None:
        data = codec.send(event)
        if data:
            writer.write(data)
            await writer.drain()

    async def receive() -> h11.Event:
        while (event := codec.next_event()) is h11.NEED_DATA:
            codec.receive_data(await reader.read(65536))
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionError
        assert isinstance(event, h11.Event)
        return event

    head = await receive()
    assert isinstance(head, h11.Request)
    request.method, request.target, request.fields = head.method, head.target, list(head.headers)
    seen.add(request)
    if case.origin is OriginFault.SENDS_A_MALFORMED_HEAD:
        writer.write(MALFORMED)
        await writer.drain()
        raise ConnectionError
    if case.expects_continue:
        await send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    async def receive_body() -> None:
        while not request.complete:
            event = await receive()
            if isinstance(event, h11.Data):
                request.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                request.trailers, request.complete = list(event.headers), True

    if not case.is_answered_early:
        await receive_body()
    if case.origin is OriginFault.CLOSES_BEFORE_THE_HEAD:
        raise ConnectionError
    for status in case.interim:
        await send(h11.InformationalResponse(status_code=status, headers=[(b"link", b"</a>")]))
    fields = _response_fields(case)
    if not case.response_declared:
        fields.append((b"transfer-encoding", b"chunked"))
    await send(h11.Response(status_code=case.status, headers=fields))
    pieces = case.response if case.has_content else ()
    for number, piece in enumerate(pieces):
        if case.origin is OriginFault.DIES_IN_THE_BODY and number:
            writer.transport.abort()
            raise ConnectionError
        await send(h11.Data(data=piece))
        if case.client.gives_up:
            await seen.given_up.wait()
    await send(h11.EndOfMessage(headers=case.response_trailers))
    if case.client.gives_up:
        await receive_body()


def http2(case: Case, seen: Arrivals) -> Script:
    """Play a case for every stream of a connection, one after the other."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Peer(reader, writer)
        while True:
            head = await peer.wait(RequestReceived)
            assert head.stream_id is not None
            request = Seen()
            pseudo = dict(head.headers)
            request.method, request.target = pseudo[b":method"], pseudo[b":path"]
            request.fields = [pair for pair in head.headers if pair[0][:1] != b":"]
            seen.add(request)
            await _Http2Exchange(peer, case, seen, request, head).play()

    return script


class _Aborted(Exception):
    """The edge reset the stream."""


class _Http2Exchange:
    def __init__(
        self, peer: H2Peer, case: Case, seen: Arrivals, request: Seen, head: RequestReceived
    ) -> None:
        self._peer, self._case, self._seen, self._request = peer, case, seen, request
        assert head.stream_id is not None
        self._stream_id = head.stream_id
        self._ended_at_once = head.stream_ended is not None

    async def play(self) -> None:
        try:
            await self._play()
        except _Aborted:
            self._request.aborted = True
        except ConnectionError:
            self._request.aborted = True
            raise

    async def _play(self) -> None:
        case, codec, stream_id = self._case, self._peer.codec, self._stream_id
        if case.origin is OriginFault.SENDS_A_MALFORMED_HEAD:
            codec.config.validate_outbound_headers = False
            codec.config.normalize_outbound_headers = False
            codec.send_headers(stream_id, [(b":status", b"200"), (b"x frame", b"DENY")], True)
            await self._peer.flush()
            return
        if case.expects_continue:
            codec.send_headers(stream_id, [(b":status", b"100")])
        if not case.is_answered_early:
            await self._until(lambda: self._request.complete)
        if case.origin is OriginFault.CLOSES_BEFORE_THE_HEAD:
            self._peer.writer.transport.abort()
            raise ConnectionError
        for status in case.interim:
            codec.send_headers(stream_id, [(b":status", b"%d" % status), (b"link", b"</a>")])
        fields = [(b":status", b"%d" % case.status), *_response_fields(case)]
        pieces = case.response if case.has_content else ()
        last = not pieces and not case.response_trailers
        codec.send_headers(stream_id, fields, end_stream=last)
        for number, piece in enumerate(pieces):
            if case.origin is OriginFault.DIES_IN_THE_BODY and number:
                await self._peer.flush()
                self._peer.writer.transport.abort()
                raise ConnectionError
            await self._send(piece)
            if case.client.gives_up:
                await self._peer.flush()
                await self._seen.given_up.wait()
        if case.response_trailers:
            codec.send_headers(stream_id, case.response_trailers, end_stream=True)
        elif pieces:
            codec.end_stream(stream_id)
        if case.origin is OriginFault.RESETS_AFTER_AN_EARLY_RESPONSE:
            codec.reset_stream(stream_id, 0)
        await self._peer.flush()
        if case.client.gives_up:
            await self._until(lambda: self._request.complete)

    async def _send(self, data: bytes) -> None:
        codec = self._peer.codec

        def window() -> int:
            return codec.local_flow_control_window(self._stream_id)

        while data:
            await self._until(lambda: window() > 0)
            size = min(window(), len(data), codec.max_outbound_frame_size)
            codec.send_data(self._stream_id, data[:size])
            data = data[size:]

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Handle what the edge sends until the condition holds."""
        if self._ended_at_once:
            self._request.complete = True
        while True:
            self._take()
            await self._peer.flush()
            if condition():
                return
            data = await self._peer.reader.read(65536)
            if not data:
                raise ConnectionError
            self._peer.events += self._peer.codec.receive_data(data)

    def _take(self) -> None:
        request = self._request
        events, self._peer.events = self._peer.events, []
        for event in events:
            if isinstance(event, ConnectionTerminated | WindowUpdated):
                continue
            if getattr(event, "stream_id", None) != self._stream_id:
                self._peer.events.append(event)
            elif isinstance(event, DataReceived):
                request.body += event.data
                self._peer.codec.acknowledge_received_data(
                    event.flow_controlled_length, self._stream_id
                )
            elif isinstance(event, TrailersReceived):
                request.trailers = list(event.headers)
            elif isinstance(event, StreamEnded):
                request.complete = True
            elif isinstance(event, StreamReset):
                raise _Aborted


ORIGINS: dict[str, Callable[[Case, Arrivals], Script]] = {"http/1.1": http1, "h2": http2}
