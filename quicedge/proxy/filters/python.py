"""Runs filters written in Python (`quicedge.filters`) among those of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import lru_cache
from inspect import isawaitable
from time import monotonic, perf_counter
from typing import Any, TypeAlias, TypeVar

import structlog

from quicedge.config.filterlimits import BLOCKING_LOGGED_PER_SECOND, FILTER_BLOCKING
from quicedge.config.limits import FILTER_NAMES_REMEMBERED
from quicedge.filters import BodyTransform, Filter, Headers, Request, Response
from quicedge.filters.body import content
from quicedge.http.forwarding import Written
from quicedge.http.message import Field, Fields
from quicedge.http.message import Request as EdgeRequest
from quicedge.http.message import Response as EdgeResponse
from quicedge.http.semantics import response_has_body
from quicedge.proxy.accounting import route_label
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.python_client import FilterClient
from quicedge.proxy.filters.route_filter import RequestResult, ResponseResult, RouteFilter
from quicedge.proxy.reply import Reply
from quicedge.shares.rates import RateLimit
from quicedge.telemetry.metrics import FilterMetrics, Metrics

log = structlog.get_logger(__name__)

T = TypeVar("T")
Clock: TypeAlias = Callable[[], float]


class FilterContext:
    """`filters.Context` of one exchange and one filter."""

    __slots__ = (
        "_clock", "_exchange", "_name", "_request", "changes_request", "changes_response",
        "client", "route", "state",
    )  # fmt: skip

    def __init__(self, name: str, exchange: Exchange, clock: Clock) -> None:
        self._name = name
        self._exchange = exchange
        self._request: Request | None = None
        self.client = FilterClient(exchange.client)
        self._clock = clock
        self.route = route_label(exchange.route)
        self.state: dict[str, Any] = {}
        self.changes_request = False
        """A transform changes the content, so that Content-Length no longer holds."""
        self.changes_response = False

    @property
    def request(self) -> Request:
        if self._request is None:
            self._request = Request.of(self._exchange.request)
        return self._request

    @property
    def log(self) -> Any:
        return log.bind(filter=self._name, connection=self.client.connection_id)

    @property
    def status(self) -> int:
        return self._exchange.status

    @property
    def outcome(self) -> str | None:
        outcome = self._exchange.outcome
        return None if outcome is None else outcome.value

    @property
    def bytes_received(self) -> int:
        return self._exchange.bytes_received

    @property
    def bytes_sent(self) -> int:
        return self._exchange.bytes_sent

    @property
    def seconds(self) -> float:
        ended = self._exchange.ended_at
        return (self._clock() if ended is None else ended) - self._exchange.started_at

    def transform_request(self, transform: BodyTransform) -> None:
        run = self._exchange.run
        if run is None or not run.holds_request:
            raise RuntimeError("the request has been forwarded: transform it in on_request")
        self.changes_request = True
        self._exchange.transform_request(TransformStage(transform))

    def transform_response(self, transform: BodyTransform) -> None:
        if self._exchange.response_started:
            raise RuntimeError("the response has begun: transform it in on_response")
        self.changes_response = True
        self._exchange.transform_response(TransformStage(transform))


class TransformStage(BodyStage):
    """A transform in the way of a body."""

    def __init__(self, transform: BodyTransform) -> None:
        self._transform = transform

    def write(self, data: bytes) -> None:
        changed = content(self._transform.write(data))
        if changed:
            self.sink.write(changed)

    def end(self, trailers: Sequence[Field]) -> None:
        rest = content(self._transform.end())
        if rest:
            self.sink.write(rest)
        self.sink.end(trailers)

    def close(self) -> None:
        self._transform.close()


class PythonFilter(RouteFilter):
    """One object of a filter class."""

    def __init__(
        self,
        reference: str,
        target: Filter,
        timeout: float | None,
        clock: Clock = monotonic,
        *,
        tell_underscores: bool = False,
    ) -> None:
        self.reference = reference
        """`module:Class`, the name of its metrics."""
        self.timeout = timeout
        self.metrics = FilterMetrics()
        """Replaced by the worker's once it is adopted, so that counts survive reloads."""
        self._filter = target
        self._tell_underscores = tell_underscores
        self._clock = clock
        self._contexts: dict[Exchange, FilterContext] = {}
        self._retired = False
        self._closed = False
        self._blocking = RateLimit(BLOCKING_LOGGED_PER_SECOND)

    def on_request(
        self, request: EdgeRequest, exchange: Exchange
    ) -> RequestResult | Awaitable[RequestResult]:
        context = self._context(exchange)
        head = Request.of(request)
        return self._settled(
            self._call(self._filter.on_request, head, context),
            lambda result: self._request(result, head, request, context),
        )

    def on_response(
        self, response: EdgeResponse, exchange: Exchange
    ) -> ResponseResult | Awaitable[ResponseResult]:
        context = self._context(exchange)
        head = Response.of(response)
        return self._settled(
            self._call(self._filter.on_response, head, context),
            lambda result: _response(result, head, response, context),
        )

    def _request(
        self, result: object, head: Request, request: EdgeRequest, context: FilterContext
    ) -> RequestResult:
        """What the edge makes of the result of `on_request`."""
        if isinstance(result, Response):
            return _reply(result)
        if isinstance(result, Request):
            changed = result is not head
            if result.method != head.method:
                raise ValueError(f"on_request made a {result.method} of a {head.method}")
            head = result
        elif result is None:
            changed = False
        else:
            raise TypeError(f"on_request returned {type(result).__name__}")
        headers = head.headers
        changed = changed or head.is_changed or headers.is_changed or bool(headers.written)
        if not (changed or context.changes_request):
            return request
        return EdgeRequest(
            request.method,
            request.scheme,
            head.authority.encode("ascii"),
            head.target.encode("ascii"),
            self._without_lookalikes(headers) if headers.written else headers.to_fields(),
            None if context.changes_request else request.content_length,
            request.ended,
            request.protocol,
        )

    def _without_lookalikes(self, headers: Headers) -> Fields:
        """Without what origins may take for fields that the filter has set or removed."""
        written = headers.written
        alike = _alike(frozenset(written), self._tell_underscores)
        return [line for line in headers.to_fields() if line[0] in written or line[0] not in alike]

    def _settled(self, result: Any, finish: Callable[[object], T]) -> T | Awaitable[T]:
        """What `finish` makes of the result of a phase, now or once it is there."""
        return self._later(result, finish) if isawaitable(result) else finish(result)

    async def _later(self, result: Awaitable[Any], finish: Callable[[object], T]) -> T:
        return finish(await self._waited(result))

    def on_done(self, exchange: Exchange) -> None:
        context = self._contexts.pop(exchange, None)
        try:
            if context is not None:
                self._call(self._filter.on_done, context)
        finally:
            self._close_if_idle()

    def adopted(self, metrics: Metrics, clock: Clock) -> None:
        self.metrics = metrics.filter(self.reference)
        self._clock = clock

    def retired(self) -> None:
        self._retired = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._closed and not self._contexts:
            self._closed = True
            try:
                self._filter.close()
            except BaseException:  # even SystemExit: it would end the worker
                log.exception("filter failed to close", filter=self.name)

    def _context(self, exchange: Exchange) -> FilterContext:
        context = self._contexts.get(exchange)
        if context is None:
            context = FilterContext(self.name, exchange, self._clock)
            self._contexts[exchange] = context
        return context

    def _call(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Call a method of the filter, and count the time for which it holds the event loop."""
        metrics = self.metrics
        metrics.calls += 1
        started = perf_counter()
        try:
            return method(*arguments)
        except BaseException:
            metrics.failures += 1
            raise
        finally:
            self._held_loop(perf_counter() - started)

    def _held_loop(self, seconds: float) -> None:
        self.metrics.seconds += seconds
        if seconds >= FILTER_BLOCKING and self._blocking.allow(self._clock()):
            log.warning(
                "filter blocks its worker",
                filter=self.name,
                python=self.reference,
                seconds=round(seconds, 3),
            )

    async def _waited(self, result: Awaitable[Any]) -> Any:
        started = perf_counter()
        try:
            return await _Timed(result, self._held_loop)
        except Exception:
            self.metrics.failures += 1
            raise
        finally:
            self.metrics.waited_seconds += perf_counter() - started


@lru_cache(maxsize=FILTER_NAMES_REMEMBERED)
def _alike(names: frozenset[bytes], tell_underscores: bool) -> Written:
    """What origins may take for fields of these names."""
    return Written(names, tell_underscores=tell_underscores)


class _Timed:
    """An awaitable that tells for how long each of its steps holds the event loop, in seconds."""

    def __init__(self, awaitable: Awaitable[Any], note: Callable[[float], None]) -> None:
        self._awaitable = awaitable
        self._note = note

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        thrown: BaseException | None = None
        while True:
            started = perf_counter()
            try:
                waits_for = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            finally:
                self._note(perf_counter() - started)
            thrown = None
            try:
                yield waits_for
            except BaseException as error:  # a cancellation
                thrown = error


def _response(
    result: object, head: Response, response: EdgeResponse, context: FilterContext
) -> ResponseResult:
    """What the edge makes of the result of `on_response`."""
    if result is not None and not isinstance(result, Response):
        raise TypeError(f"on_response returned {type(result).__name__}")
    if isinstance(result, Response) and result is not head:
        return _reply(result)
    if head.body is not None:
        return _reply(head)
    changed = head.is_changed or head.headers.is_changed
    if not response_has_body(b"GET", head.status) and response_has_body(b"GET", response.status):
        return _reply(head)  # the content of the origin's has no place any more
    if not changed and not context.changes_response:
        return response
    fields = head.headers.to_fields()
    if context.changes_response:
        fields = [line for line in fields if line[0] not in _OF_CONTENT]
    return EdgeResponse(head.status, fields, response.version)


_OF_CONTENT = frozenset((b"accept-ranges", b"content-length", b"digest", b"repr-digest"))
"""Fields that no longer hold once the content is changed."""


def _reply(response: Response) -> Reply:
    fields = [line for line in response.headers.to_fields() if line[0] != b"content-length"]
    return Reply(EdgeResponse(response.status, fields), response.body or b"")
