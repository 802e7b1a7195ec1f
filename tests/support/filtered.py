"""A gateway with the filters of a configuration, between a fake client and a fake origin."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quicedge.config.loader import parse_config
from quicedge.config.schema import Config
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters import RouteFilter, RouteFilters, build_route_filters
from quicedge.proxy.gateway import Gateway
from quicedge.proxy.policy import Policy
from quicedge.proxy.router import Router
from quicedge.proxy.spans import SpanRecorder
from quicedge.telemetry.access import AccessRecord
from quicedge.upstream.base import ResponseHandler
from tests.support.client_info import StubClient

UPSTREAM = """
[upstreams.app]
servers = ["http://127.0.0.1:1"]
"""


def toml(value: object) -> str:
    """A value as TOML has it, in one line."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
            + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def config_of(text: str, directory: Path = Path("/")) -> Config:
    """A configuration with an upstream `app`; raises ConfigError."""
    document = tomllib.loads(UPSTREAM + text)
    return parse_config(document, "quicedge.toml", directory, machine=False)


class Client:
    """A client's stream: takes everything at once, and keeps it."""

    stream_id = 4
    undelivered = 0

    def __init__(self) -> None:
        self.status = 0
        self.fields: Fields = []
        self.body = b""
        self.writes: list[bytes] = []
        self.interim: list[Response] = []
        self.trailers: Fields = []
        self.ended = self.was_reset = self.stopped = False
        self.credit = 0
        self.exchange: Exchange | None = None
        self.is_done = False

    def accepted(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def done(self, exchange: Exchange) -> None:
        self.is_done = True

    def informational(self, response: Response) -> None:
        self.interim.append(response)

    def response(self, response: Response, end: bool) -> None:
        assert not self.status, "one final response"
        self.status, self.fields, self.ended = response.status, list(response.fields), end

    def write(self, data: bytes) -> None:
        assert self.status
        assert not self.ended
        self.writes.append(data)
        self.body += data

    def end(self, trailers: Sequence[Field]) -> None:
        assert not self.ended
        self.ended, self.trailers = True, list(trailers)

    def reset(self, internal: bool) -> None:
        self.was_reset = True

    def consumed(self, nbytes: int) -> None:
        self.credit += nbytes

    def stop_request(self) -> None:
        self.stopped = True

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes | None:
        found = self.values(name)
        assert len(found) < 2, found
        return found[0] if found else None


class Origin:
    """An upstream, and the stream of its last request."""

    server, http_version, scheme = "127.0.0.1:1", "1.1", "http"
    queue_seconds = connect_seconds = 0.0
    retries = 0
    stalled = False
    is_contended = False

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.body = b""
        self.ended = self.aborted = self.paused = False
        self.trailers: Fields = []
        self.handler: Any = None
        self.answers: Callable[[Origin], None] | None = None
        """Called, a turn of the loop later, with each request."""

    def open(self, request: Request, handler: ResponseHandler, *_: Any) -> Any:
        self.requests.append(request)
        self.handler = handler
        self.body, self.ended, self.aborted = b"", request.ended, False
        if self.answers is not None:
            asyncio.get_running_loop().call_soon(self.answers, self)
        return self

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.body += data

    def end(self, trailers: Sequence[Field] = ()) -> None:
        assert not self.ended
        self.ended, self.trailers = True, list(trailers)

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def reclaim(self) -> None: ...

    def stats(self) -> dict[str, dict[str, int]]:
        return {}

    # --- the response -----------------------------------------------------------------------------

    def respond(
        self, status: int = 200, fields: Mapping[bytes, bytes] | None = None, *pieces: bytes,
        declared: bool = True, end: bool = True,
    ) -> None:  # fmt: skip
        """Send a response, with its length unless it is not `declared`."""
        head = list((fields or {}).items())
        if declared and status not in (204, 304):
            head.append((b"content-length", b"%d" % len(b"".join(pieces))))
        self.handler.response(Response(status, head, b"1.1"))
        if self.handler is not None:
            for piece in pieces:
                self.handler.data(piece)
            if end:
                self.handler.end(())


class Log:
    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def log(self, record: AccessRecord) -> None:
        self.records.append(record)


class World:
    """A gateway on a clock that stands still; `filters` are added to those of the first route."""

    def __init__(
        self, text: str = "", *filters: RouteFilter, directory: Path = Path("/"),
        config: Config | None = None, upstream: Any = None,
    ) -> None:  # fmt: skip
        """`upstream`: in place of the fake one."""
        config = config or config_of(text or '[[routes]]\nupstream = "app"', directory)
        clock = lambda: 10.0  # noqa: E731
        self.config = config
        self.origin, self.log = Origin(), Log()
        self.policy = Policy(config, clock)
        self.gateway = Gateway(
            self.policy, SpanRecorder(config.otel, clock), self.log,  # type: ignore[arg-type]
            clock=clock, date=lambda: b"now",
        )  # fmt: skip
        upstreams: dict[str, Any] = dict.fromkeys(config.upstreams, upstream or self.origin)
        route_filters: RouteFilters = build_route_filters(config, upstreams)
        if filters:
            first = id(config.routes[0])
            for index, item in enumerate(filters):
                item.name = item.name or f"routes[0].filters[{index}] (test)"
            route_filters[first] = (*route_filters.get(first, ()), *filters)
        self.gateway.use(config, Router(config.routes), upstreams, route_filters)

    def send(
        self, path: bytes = b"/", *fields: Field, method: bytes = b"GET", host: bytes = b"a.test",
        client: StubClient | None = None, ended: bool = True, length: int | None = None,
        protocol: bytes | None = None,
    ) -> Client:  # fmt: skip
        """Send a request; its body, if it is not `ended`, goes to `exchange`."""
        stream = Client()
        lines = list(fields)
        if length is not None:
            lines.append((b"content-length", b"%d" % length))
        request = Request(method, b"https", host, path, lines, length, ended, protocol)
        exchange = self.gateway.handle(request, stream, client or StubClient())
        if exchange.response_over:
            exchange.delivered()
        return stream

    @property
    def request(self) -> Request:
        """The last request that the origin got."""
        return self.origin.requests[-1]

    def asked(self, name: bytes) -> bytes | None:
        """The value of a field of that request."""
        found = [value for key, value in self.request.fields if key == name]
        assert len(found) < 2, found
        return found[0] if found else None


async def turns(count: int = 5) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
