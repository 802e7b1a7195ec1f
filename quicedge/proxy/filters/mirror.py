"""Sends copies of requests to another upstream, and compares what both answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence

import structlog

from quicedge.config import filters as config
from quicedge.config.filterlimits import MIRROR_LOGGED_PER_SECOND
from quicedge.http.message import Field, Request, Response
from quicedge.proxy.body import BodyStage
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.shares.rates import RateLimit
from quicedge.telemetry.metrics import Metrics
from quicedge.telemetry.mirrors import MirrorMetrics, MirrorResult
from quicedge.telemetry.outcomes import Outcome
from quicedge.telemetry.text import text
from quicedge.upstream.base import OriginStream, UpstreamError, in_pieces

log = structlog.get_logger(__name__)

VOLATILE = frozenset(
    (
        b"age", b"alt-svc", b"connection", b"content-length", b"date", b"etag", b"expires",
        b"keep-alive", b"last-modified", b"server", b"set-cookie", b"transfer-encoding", b"via",
        b"x-request-id", b"x-runtime",
    )
)  # fmt: skip
"""Fields that differ between two servers that do the same."""


class Mirror(RouteFilter):
    """Copies go to the other upstream beside the request, and their responses nowhere.

    Neither waits for the other. At most `max_running` copies run at once; a body that is longer
    than `max_body`, or that the other upstream does not take as fast, ends the copy.
    """

    def __init__(
        self,
        settings: config.Mirror,
        origin: Origin,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.origin = origin
        self.metrics = MirrorMetrics()
        self.running = 0
        self._draw = draw
        self._methods = frozenset(method.encode() for method in settings.methods)
        self._ignored = VOLATILE | {name.lower().encode() for name in settings.ignore_headers}
        self._copies: dict[Exchange, _Copy] = {}
        self._logged = RateLimit(MIRROR_LOGGED_PER_SECOND)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the worker; filters are built, to be checked, without one too."""
        return asyncio.get_running_loop()

    def adopted(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.metrics = metrics.mirror(self.settings.upstream)

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        if (
            request.protocol is not None
            or request.method not in self._methods
            or self._draw() >= self.settings.share
        ):
            return request
        length = request.content_length
        too_long = length is not None and length > self.settings.max_body
        if too_long or self.running >= self.settings.max_running:
            self.metrics.count(MirrorResult.SKIPPED)
            return request
        copy = self._copies[exchange] = _Copy(self, request, exchange)
        if not request.ended:
            exchange.transform_request(_Tee(copy))
        return request

    def on_response(self, response: Response, exchange: Exchange) -> Response:
        copy = self._copies.get(exchange)
        if copy is not None and copy.original is None:
            copy.original = _Answer(response, self.loop.time() - copy.started)
            exchange.transform_response(_Counter(copy.original))
        return response

    def on_done(self, exchange: Exchange) -> None:
        copy = self._copies.pop(exchange, None)
        if copy is not None:
            copy.original_done(exchange.outcome)

    def fields_of(self, response: Response) -> dict[bytes, list[bytes]]:
        """What is compared of a head."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in response.fields:
            if name not in self._ignored:
                found.setdefault(name, []).append(value)
        return found

    def compare(self, copy: _Copy) -> None:
        """Both have answered."""
        original, mirrored = copy.original, copy.answer
        assert original is not None
        assert mirrored is not None
        self.metrics.timed(original.seconds, mirrored.seconds)
        first, second = original.head, mirrored.head
        differing: list[str] = []
        if first.status != second.status:
            result = MirrorResult.STATUS
        elif (one := self.fields_of(first)) != (other := self.fields_of(second)):
            result = MirrorResult.HEADERS
            differing = sorted(
                text(name) for name in {*one, *other} if one.get(name) != other.get(name)
            )
        elif original.size != mirrored.size:
            result = MirrorResult.SIZE
        else:
            self.metrics.count(MirrorResult.SAME)
            return
        self.metrics.count(result)
        if self._logged.allow(self.loop.time()):
            log.warning(
                "mirrored response differs",
                filter=self.name,
                method=text(copy.method),
                path=text(copy.path),
                differs=result.value,
                headers=differing,
                status=first.status,
                mirror_status=second.status,
                size=original.size,
                mirror_size=mirrored.size,
            )


class _Answer:
    """A response: its head, its size in bytes, and the seconds until it began."""

    __slots__ = ("head", "seconds", "size")

    def __init__(self, head: Response, seconds: float) -> None:
        self.head = head
        self.seconds = seconds
        self.size = 0


class _Copy:
    """One copy of a request, and the `upstream.base.ResponseHandler` of its response."""

    def __init__(self, mirror: Mirror, request: Request, exchange: Exchange) -> None:
        self.started = mirror.loop.time()
        self.method, self.path = request.method, request.path
        self.original: _Answer | None = None
        self.answer: _Answer | None = None
        self._mirror = mirror
        self._original_complete = False
        self._complete = False
        self._sent = 0
        self._paused = False
        mirror.running += 1
        self._deadline = mirror.loop.call_later(mirror.settings.timeout, self.give_up)
        copied = request.with_fields(list(request.fields))
        self._stream: OriginStream | None = mirror.origin.open(
            copied, self, exchange.client.share, exchange.client
        )

    # --- the request ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """A part of the request's body."""
        if self._stream is None:
            return
        self._sent += len(data)
        if self._paused or self._sent > self._mirror.settings.max_body:
            self.give_up()
        else:
            self._stream.write(data)

    def send_end(self, trailers: Sequence[Field]) -> None:
        """The request is complete."""
        if self._stream is not None:
            self._stream.end(trailers)

    def give_up(self, result: MirrorResult = MirrorResult.FAILED) -> None:
        """Abandon the copy: unless said otherwise, it is too long, or its upstream too slow."""
        if self._stream is not None:
            self._stream.abort()
            self._over(result)

    # --- the response ---------------------------------------------------------------------------

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None:
        self.answer = _Answer(response, self._mirror.loop.time() - self.started)

    def data(self, data: bytes) -> None:
        assert self.answer is not None
        self.answer.size += len(data)

    def end(self, trailers: Sequence[Field]) -> None:
        self._complete = True
        self._over(None)
        self._compare()

    def whole(self, response: Response, data: bytes) -> None:
        in_pieces(self, response, data)

    def failed(self, error: UpstreamError) -> None:
        self._over(MirrorResult.FAILED)

    def pause_request(self) -> None:
        self._paused = True

    def resume_request(self) -> None:
        self._paused = False

    # --- both -----------------------------------------------------------------------------------

    def original_done(self, outcome: Outcome | None) -> None:
        """The original exchange has ended; a client that has left tells nothing of the origin."""
        self._original_complete = outcome is Outcome.COMPLETE and self.original is not None
        if self._original_complete:
            self._compare()
        elif self._stream is not None:
            self.give_up(MirrorResult.ABANDONED)
        elif self._complete:
            self._mirror.metrics.count(MirrorResult.ABANDONED)

    def _over(self, result: MirrorResult | None) -> None:
        self._stream = None
        self._deadline.cancel()
        self._mirror.running -= 1
        if result is not None:
            self._mirror.metrics.count(result)

    def _compare(self) -> None:
        if self._complete and self._original_complete:
            self._mirror.compare(self)


class _Tee(BodyStage):
    """Passes the body of a request on, and to its copy."""

    def __init__(self, copy: _Copy) -> None:
        self._copy = copy

    def write(self, data: bytes) -> None:
        self._copy.send(data)
        self.sink.write(data)

    def end(self, trailers: Sequence[Field]) -> None:
        self._copy.send_end(trailers)
        self.sink.end(trailers)


class _Counter(BodyStage):
    """Counts the body of the original response."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def write(self, data: bytes) -> None:
        self._answer.size += len(data)
        self.sink.write(data)


def build(given: config.Mirror, where: str, resources: Resources) -> Iterator[RouteFilter]:
    """The filter of an entry."""
    yield Mirror(given, resources.upstreams[given.upstream])
