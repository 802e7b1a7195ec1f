"""An HTTP/2 session on a fake transport and a loop moved by hand, with the test as the origin.

`H2Client` speaks through the library h2, which validates every frame it gets; `RawClient` writes
arbitrary frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hpack import Decoder, Encoder

from quicedge.downstream.http2 import Http2Session
from quicedge.http.h2 import H2Settings
from quicedge.http.h2_frames import PREFACE, frame_header
from quicedge.http.message import Field
from tests.support.client_info import StubClient
from tests.support.h1client import FakeLoop, FakeTransport
from tests.support.hostile_h2 import Received
from tests.support.sessions import GET, OriginRequest, StubEdge


class FakeConnection:
    """A connection whose client acknowledges what its transport has sent."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.unacknowledged = 0

    def undelivered(self) -> int:
        return self.transport.buffered + self.unacknowledged


class SessionHarness:
    """A session, and what it needs."""

    def __init__(self, settings: H2Settings | None = None) -> None:
        self.loop = FakeLoop()
        self.edge = StubEdge()
        self.transport = FakeTransport()
        self.connection = FakeConnection(self.transport)
        self.ended_sessions: list[object] = []
        host = SimpleNamespace(
            loop=self.loop,
            h2_settings=settings or H2Settings(),
            session_ended=self.ended_sessions.append,
        )
        self.session = Http2Session(
            self.connection, StubClient(http_version=b"2"), self.edge, host,  # type: ignore[arg-type]
        )  # fmt: skip
        self.transport.session = self.session
        self.session.start()
        self._taken = 0

    @property
    def origin(self) -> list[OriginRequest]:
        """Requests that the origin got."""
        return self.edge.at_origin

    @property
    def is_closed(self) -> bool:
        return self.transport.is_closing()

    def deliver(self, data: bytes) -> None:
        """Bytes of the client arrive."""
        if data and not self.is_closed:
            self.session.data_received(data)
            self.run()

    def run(self) -> None:
        self.loop.run()
        while self.edge.answers_at_once and self.edge.at_origin:
            self.edge.at_origin.pop().answer()
            self.loop.run()

    def lose(self, error: Exception | None = None) -> None:
        """The connection ends."""
        self.session.connection_lost(error)
        self.run()

    def output(self) -> bytes:
        """What the session has written since the last call."""
        writes = self.transport.writes
        new, self._taken = writes[self._taken :], len(writes)
        return b"".join(new)


class H2Client(SessionHarness):
    """A well-behaved client: what it received, by stream."""

    def __init__(self, settings: H2Settings | None = None) -> None:
        super().__init__(settings)
        self.h2 = H2Connection(
            H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        )
        self.heads: dict[int, list[Field]] = {}
        self.interim: list[list[Field]] = []
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[Field]] = {}
        self.ended: list[int] = []
        self.resets: dict[int, int] = {}
        self.goaways: list[tuple[int, int]] = []
        """Error code and last stream of each GOAWAY."""
        self.acknowledges = True
        """Reopen windows at once."""
        self.h2.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Let everything reach the other side."""
        while True:
            self.deliver(self.h2.data_to_send())
            received = self.output()
            if not received:
                return
            for event in self.h2.receive_data(received):
                self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self.heads[event.stream_id] = list(event.headers)  # type: ignore[index, arg-type]
        elif isinstance(event, InformationalResponseReceived):
            self.interim.append(list(event.headers))  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            stream_id = event.stream_id or 0
            self.bodies[stream_id] = self.bodies.get(stream_id, b"") + (event.data or b"")
            if self.acknowledges and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, TrailersReceived):
            self.trailers[event.stream_id] = list(event.headers)  # type: ignore[index, arg-type]
        elif isinstance(event, StreamEnded):
            self.ended.append(event.stream_id or 0)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id or 0] = int(event.error_code or 0)
        elif isinstance(event, ConnectionTerminated):
            self.goaways.append((int(event.error_code or 0), event.last_stream_id or 0))

    def ask(self, fields: Sequence[Field] = GET, end: bool = True) -> int:
        """Send a request head; returns its stream."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, list(fields), end_stream=end)
        self.exchange()
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)
        self.exchange()

    def status(self, stream_id: int) -> bytes:
        return dict(self.heads[stream_id])[b":status"]

    def answer(self, index: int = -1, content: bytes = b"ok", **options: Any) -> None:
        """The origin answers a request."""
        self.origin[index].answer(content, **options)
        self.run()
        self.exchange()


class RawClient(SessionHarness):
    """A client that writes frames, and reads those of the edge's without a judgement."""

    def __init__(self, settings: H2Settings | None = None, *, greets: bool = True) -> None:
        super().__init__(settings)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Received] = []
        """All frames of the edge's so far."""
        self._rest = b""
        self._next = 1
        if greets:
            self.send(PREFACE, frame_header(4, 0, 0, 0))

    def send(self, *frames: bytes) -> list[Received]:
        """Write frames; returns what came back."""
        self.deliver(b"".join(frames))
        return self.read()

    def read(self) -> list[Received]:
        new = list(self._parse(self.output()))
        self.frames += new
        return new

    def _parse(self, data: bytes) -> Iterator[Received]:
        data = self._rest + data
        while len(data) >= 9:
            stop = 9 + int.from_bytes(data[:3], "big")
            if len(data) < stop:
                break
            yield Received(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:stop])
            data = data[stop:]
        self._rest = data

    def open(self) -> int:
        self._next += 2
        return self._next - 2

    def head(self, fields: Sequence[Field] = GET, *, end: bool = True, stream_id: int = 0) -> bytes:
        """HEADERS of a new stream."""
        block = self.encoder.encode(list(fields))
        return frame(1, 5 if end else 4, stream_id or self.open(), block)

    def ask(self, fields: Sequence[Field] = GET, *, end: bool = True) -> int:
        stream_id = self.open()
        self.send(self.head(fields, end=end, stream_id=stream_id))
        return stream_id

    @property
    def goaway(self) -> int | None:
        """The error code of the last GOAWAY."""
        codes = [f.payload[4:8] for f in self.frames if f.kind == 7]
        return int.from_bytes(codes[-1], "big") if codes else None

    @property
    def resets(self) -> dict[int, int]:
        return {f.stream_id: int.from_bytes(f.payload, "big") for f in self.frames if f.kind == 3}

    def of(self, kind: int) -> list[Received]:
        return [f for f in self.frames if f.kind == kind]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame at all."""
    return frame_header(kind, flags, stream_id, len(payload)) + payload
