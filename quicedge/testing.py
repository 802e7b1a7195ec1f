"""Tests of filters without an edge: no socket, no process, the same code path as in a worker.

result = await exchange(AddUser(header="x-user"), Request("GET", "/"))
assert result.forwarded.headers["x-user"] == "anonymous"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quicedge.client_auth.rules import Identity
from quicedge.filters import Filter, Request, Response
from quicedge.http.message import Field, HttpVersion
from quicedge.http.message import Request as EdgeRequest
from quicedge.http.message import Response as EdgeResponse
from quicedge.proxy.alt_svc import AltSvcSource
from quicedge.proxy.client import TlsFacts, Transport
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import FilterChain
from quicedge.proxy.filters.phases import Phases
from quicedge.proxy.filters.python import PythonFilter
from quicedge.shares import Client as Share
from quicedge.telemetry.protocols import TransportKind
from quicedge.upstream.base import ResponseHandler

TIMEOUT = 10.0
"""Seconds that an exchange may take."""


@dataclass
class TestClient:
    """The client of an exchange: HTTP/3 over QUIC, unless told otherwise."""

    __test__ = False

    address: tuple[str, int] | None = ("192.0.2.1", 50000)
    local_address: tuple[str, int] | None = ("198.51.100.1", 443)
    http_version: bytes = b"3"
    identity: Identity | None = None
    early_data: bool = False
    tls: TlsFacts = field(
        default_factory=lambda: TlsFacts(
            version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256", server_name="localhost"
        )
    )
    transport: Transport = field(
        default_factory=lambda: Transport(
            TransportKind.QUIC, "test", "v1", 0.02, 0.01, 14720, 0, 100, 1, False
        )
    )
    alt_svc: AltSvcSource | None = None
    first_byte_at: float | None = None
    share: Share = field(default_factory=lambda: Share(b"\xc0\x00\x02\x01", b"\xc0\x00\x02"))

    def limited_by(self, now: float) -> str | None:
        """What limited sending; nothing does."""
        return None

    def is_authoritative(self, host: str) -> bool:
        """The connection may carry requests for every host."""
        return True


@dataclass
class Result:
    """What became of a request."""

    response: Response
    """What the client got, with its whole content."""
    forwarded: Request | None
    """What the origin got; None if a filter answered."""
    forwarded_body: bytes
    outcome: str
    """As in the access log: `complete`, `filter_failed`, ..."""
    reason: str
    """Detail of the outcome, such as the error of a filter."""


Origin = Callable[[Request, bytes], Response]
"""Answers a request and its content."""


def answer(request: Request, body: bytes) -> Response:
    """The default origin."""
    return Response(200, {"content-type": "text/plain"}, b"hello")


async def exchange(
    filters: Filter | Sequence[Filter],
    request: Request | None = None,
    body: bytes = b"",
    *,
    origin: Origin = answer,
    client: TestClient | None = None,
    timeout: float | None = None,
    piece_size: int = 1000,
) -> Result:
    """Pass a request through filters to an origin, and its response back.

    `timeout`: of the filters, in seconds. `piece_size`: content goes in pieces of so many bytes,
    as it does on a network.
    """
    given = [filters] if isinstance(filters, Filter) else list(filters)
    built = []
    for index, item in enumerate(given):
        wrapped = PythonFilter(type(item).__qualname__, item, timeout)
        wrapped.name = f"filters[{index}] (python)"
        built.append(wrapped)
    head = request or Request()
    downstream, end = _Downstream(), _Origin(origin, piece_size)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    running = Exchange(
        EdgeRequest(
            head.method.encode(),
            head.scheme.encode(),
            head.authority.encode(),
            head.target.encode(),
            head.headers.to_fields(),
            len(body) if body else None,
            ended=not body,
        ),
        downstream,
        None,
        client or TestClient(),
        FilterChain().with_phases(Phases(built, time.monotonic)),
        clock=time.monotonic,
        on_done=lambda _: done.set_result(None),
    )
    downstream.exchange = running
    running.start(end)
    for at in range(0, len(body), piece_size):
        running.request_data(body[at : at + piece_size])
    if body:
        running.request_end()
    async with asyncio.timeout(TIMEOUT):
        await done
    running.filters.on_done(running)
    for wrapped in built:
        wrapped.retired()
    assert running.outcome is not None
    response = Response(running.status or 500, body=bytes(downstream.body))
    response.headers = type(response.headers).of(downstream.fields)
    return Result(response, end.request, end.body, running.outcome.value, running.reason)


class _Downstream:
    """A client that takes everything at once (`exchange.Downstream`)."""

    stream_id = 0
    undelivered = 0

    def __init__(self) -> None:
        self.exchange: Exchange
        self.fields: list[Field] = []
        self.body = bytearray()

    def accepted(self, exchange: Exchange) -> None: ...

    def done(self, exchange: Exchange) -> None: ...

    def informational(self, response: EdgeResponse) -> None: ...

    def response(self, response: EdgeResponse, end: bool) -> None:
        self.fields = list(response.fields)
        if end:
            self._ended()

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self, trailers: Sequence[Field]) -> None:
        self._ended()

    def whole(self, response: EdgeResponse, data: bytes) -> None:
        self.response(response, end=False)
        self.write(data)
        self.end(())

    def reset(self, internal: bool) -> None:
        """The response ends here; `Exchange.outcome` says why."""

    def consumed(self, nbytes: int) -> None: ...

    def stop_request(self) -> None: ...

    def _ended(self) -> None:
        asyncio.get_running_loop().call_soon(self.exchange.delivered)


class _Origin:
    """An origin, and its one stream."""

    stalled = False
    server = "test"
    queue_seconds = 0.0
    connect_seconds = 0.0
    http_version: HttpVersion | None = HttpVersion.HTTP_1_1
    scheme = "http"
    retries = 0

    def __init__(self, answer: Origin, piece_size: int) -> None:
        self.request: Request | None = None
        self.body = b""
        self._answer = answer
        self._piece_size = piece_size
        self._handler: ResponseHandler | None = None

    def open(
        self, request: EdgeRequest, handler: ResponseHandler, client: object, peer: object
    ) -> _Origin:
        self.request = Request.of(request)
        self._handler = handler
        if request.ended:
            self._respond_soon()
        return self

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self, trailers: Sequence[Field] = ()) -> None:
        self._respond_soon()

    def abort(self) -> None:
        self._handler = None

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def _respond_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._respond)

    def _respond(self) -> None:
        handler = self._handler
        if handler is None:
            return
        assert self.request is not None
        response = self._answer(self.request, self.body)
        content = response.body or b""
        fields = [*response.headers.to_fields(), (b"content-length", b"%d" % len(content))]
        handler.response(EdgeResponse(response.status, fields, b"1.1"))
        for at in range(0, len(content), self._piece_size):
            if self._handler is not None:
                handler.data(content[at : at + self._piece_size])
        if self._handler is not None:
            handler.end(())
