"""HTTP/3 sessions of the edge, with the test as the origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pylsqpack

from quicedge.config.schema import Quic
from quicedge.downstream.http3 import Http3Session
from quicedge.http.frames import FrameType, encode_frame, encode_settings, encode_varint
from quicedge.http.h3 import H3Connection, H3Settings
from quicedge.http.message import Field, Request, Response
from quicedge.http.upgrade import ordinary_request
from quicedge.http.validation import MessageError, MessageLimits
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.exchange import Downstream, Exchange
from quicedge.proxy.filters import FilterChain
from quicedge.proxy.response_memory import ResponseMemory
from quicedge.quic import events
from quicedge.quic.ending import Delivery, Ending
from quicedge.telemetry.outcomes import Outcome, Refusal

GET: list[Field] = [
    (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/"),
]  # fmt: skip
POST: list[Field] = [(b":method", b"POST"), *GET[1:]]

CONTROL = 2
PRIORITY_UPDATE = 0xF0700
RESERVED = 0x21
"""The first reserved frame and stream type (RFC 9114 section 7.2.8)."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    return encode_frame(kind, payload)


def head(fields: Sequence[Field] = GET) -> bytes:
    return frame(FrameType.HEADERS, pylsqpack.Encoder().encode(0, list(fields))[1])


def priority_update(stream_id: int, value: bytes = b"u=1") -> bytes:
    return frame(PRIORITY_UPDATE, encode_varint(stream_id) + value)


class OriginRequest:
    """A request as the origin has it; answers where the test says so."""

    server = http_version = scheme = ""
    queue_seconds = connect_seconds = 0.0
    retries = 0
    stalled = False

    def __init__(self, request: Request, handler: Exchange) -> None:
        self.request = request
        self.handler = handler
        self.content = bytearray()
        self.ended = request.ended
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.content += data

    def end(self, trailers: Sequence[Field] = ()) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def answer(
        self,
        content: bytes = b"ok",
        fields: Sequence[Field] = (),
        trailers: Sequence[Field] = (),
    ) -> None:
        self.handler.response(Response(200, list(fields)))
        self.handler.data(content)
        self.handler.end(trailers)


class StubEdge:
    """What a session needs of gateway and worker; time stands still unless `clock` is moved."""

    def __init__(self, clock: float = 0.0, wake: Callable[[Any], None] = lambda _: None) -> None:
        self.clock = clock
        self.wake = wake
        self.max_streams = Quic().max_streams
        self.message_limits = MessageLimits()
        self.early_data: Any = None
        self.refusals: Counter[Refusal] = Counter()
        self.closed: list[str] = []
        """Why sessions were closed for what their clients did."""
        self.policy = SimpleNamespace(
            needs_address=False,
            response_memory=ResponseMemory(1 << 40, lambda call: call()),
            count=lambda reason, count=1: self.refusals.update({reason: count}),
            note_closed=lambda client, code, reason: self.closed.append(reason),
        )
        self.at_origin: list[OriginRequest] = []
        """Requests that the origin has got, in order."""
        self.answers_at_once = False
        self.rejections: list[MessageError] = []

    def now(self) -> float:
        return self.clock

    def date(self) -> bytes:
        return b"Thu, 01 Jan 1970 00:00:00 GMT"

    def session_ended(self, session: Http3Session) -> None: ...

    def negotiated(self, session: Http3Session) -> None: ...

    def handshake_completed(self, session: Http3Session) -> None: ...

    def make_codec(self, session: Http3Session, alpn: str | None) -> H3Connection:
        return H3Connection(
            session.connection, session, is_client=False, settings=H3Settings(), clock=self.now
        )

    def handle(self, request: Request, downstream: Downstream, client: ClientInfo) -> Exchange:
        """No tunnel is served, so that an upgrade is ignored (RFC 9110 section 7.8)."""
        if request.protocol is not None and client.http_version == b"1.1":
            request = ordinary_request(request)
        exchange = self._accept(request, downstream, client)
        exchange.start(self)
        return exchange

    def refuse_late(self, request: Request, downstream: Downstream, client: ClientInfo) -> None:
        self._accept(request, downstream, client).refuse(503, Outcome.OVERLOADED)

    def _accept(self, request: Request, downstream: Downstream, client: ClientInfo) -> Exchange:
        exchange = Exchange(
            request, downstream, None, client, FilterChain(), clock=self.now,
            on_done=downstream.done,
        )  # fmt: skip
        downstream.accepted(exchange)
        return exchange

    def open(self, request: Request, handler: Exchange, *options: Any) -> OriginRequest:
        self.at_origin.append(OriginRequest(request, handler))
        return self.at_origin[-1]

    def rejected(
        self, client: ClientInfo, stream_id: int, fields: Any, error: MessageError, size: int
    ) -> None:
        self.rejections.append(error)


class StubStreams:
    """The streams of a `StubConnection`."""

    responses_delivered = True
    own_streams_delivered = True
    unsent_total = 0
    peer_bidi = SimpleNamespace(granted=1 << 60)
    peer_bidi_open = 0

    def __init__(self, connection: StubConnection) -> None:
        self._connection = connection

    def without_beginning(self) -> list[int]:
        return []

    def can_send(self, stream_id: int) -> bool:
        return stream_id not in self._connection.ended and stream_id not in self._connection.resets

    can_reset = can_send

    def can_receive(self, stream_id: int) -> bool:
        return stream_id not in self._connection.stops

    def delivery(self, stream_id: int) -> Delivery:
        return Delivery.DELIVERED if stream_id in self._connection.ended else Delivery.OPEN

    def delivered(self, stream_ids: Iterable[int]) -> list[int]:
        return [stream_id for stream_id in stream_ids if stream_id in self._connection.ended]

    def is_prioritized(self, stream_id: int) -> bool:
        return False

    def unsent(self, stream_id: int) -> int:
        return 0

    unacknowledged = unsent


class StubConnection:
    """A connection whose packets arrive at once: what is sent is delivered."""

    id = "0"
    handshake_complete = True
    validated_path = None
    handshake = SimpleNamespace(server_name="localhost", certificate=None, early_data_use=None)
    paths = SimpleNamespace(address=None)
    ending = Ending.LOCAL_CLOSE
    close_event = None
    came_from = SimpleNamespace(remote=("192.0.2.1", 50000))

    def __init__(self) -> None:
        self.recovery = SimpleNamespace(delivered=0, bytes_in_flight=0)
        self.closed: tuple[int, str] | None = None
        self.control = b""
        """What we sent on our control stream."""
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.sent: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.streams = StubStreams(self)
        self._uni = 3 - 4

    @property
    def is_alive(self) -> bool:
        return self.closed is None

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self._uni += 4
        return self._uni

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.recovery.delivered += 1
        if stream_id == 3:
            self.control += data
        elif not stream_id & 2:
            self.sent[stream_id] = self.sent.get(stream_id, b"") + data
            if end_stream:
                self.ended.add(stream_id)

    def reset_stream(self, stream_id: int, code: int) -> None:
        self.resets[stream_id] = code

    def stop_stream(self, stream_id: int, code: int) -> None:
        self.stops[stream_id] = code

    def consume(self, stream_id: int, nbytes: int) -> None: ...

    def prioritize(self, stream_id: int, urgency: int, incremental: bool) -> None: ...

    def close(self, error_code: int, reason_phrase: str) -> None:
        self.closed = error_code, reason_phrase


class Client:
    """A client of HTTP/3, frame by frame, without packets: for what takes very many requests."""

    def __init__(self, **settings: int) -> None:
        self.edge = StubEdge()
        self.connection = StubConnection()
        self.session = Http3Session(self.connection, self.edge, self.edge)  # type: ignore[arg-type]
        self._tell(events.ProtocolNegotiated(alpn_protocol="h3"))
        self._next = 0
        sent = encode_settings({int(name[1:]): value for name, value in settings.items()})
        self.send(CONTROL, b"\0" + frame(FrameType.SETTINGS, sent))

    def _tell(self, event: events.QuicEvent) -> None:
        self.session.handle_event(event)
        while self.edge.answers_at_once and self.edge.at_origin:
            self.edge.at_origin.pop().answer()
        self.session.after_transmit()

    @property
    def closed(self) -> tuple[int, str] | None:
        return self.connection.closed

    @property
    def told_to_leave(self) -> bool:
        """GOAWAY came."""
        return self.session.going_away

    def open(self) -> int:
        self._next += 4
        return self._next - 4

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self._tell(events.StreamDataReceived(data=data, end_stream=end, stream_id=stream_id))

    def ask(self, data: bytes | None = None, end: bool = True) -> int:
        stream_id = self.open()
        self.send(stream_id, _GET_HEAD if data is None else data, end)
        return stream_id

    def cancel(self, stream_id: int) -> None:
        """As browsers do: no more of the request, nothing of the response."""
        self._tell(events.StreamReset(error_code=0x10C, stream_id=stream_id))
        self._tell(events.StopSendingReceived(error_code=0x10C, stream_id=stream_id))

    def forget(self) -> None:
        """Let go of what the connection kept of streams that are over."""
        connection = self.connection
        for kept in (connection.resets, connection.stops, connection.sent):
            kept.clear()
        connection.ended.clear()


_GET_HEAD = head()
