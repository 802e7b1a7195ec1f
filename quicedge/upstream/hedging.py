"""Hedged requests: a second attempt for those that take long (Dean and Barroso, "The Tail at
Scale", 2013).

Only requests that are safe and have no content are hedged, once, as long as nothing of a response
has arrived. The first response goes to the client, and the other attempt is cancelled at once. A
second attempt makes no request worse: its 5xx is not taken while the first attempt is running, and
if it fails the first one decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from quicedge.config.limits import HEDGE_MIN_SAMPLES, HEDGE_REFRESH, HEDGE_SAMPLES
from quicedge.config.schema import Hedge
from quicedge.http.message import Field, HttpVersion, Request, Response
from quicedge.shares import Client
from quicedge.telemetry.upstreams import Circuit, HedgeResult
from quicedge.upstream.base import ResponseHandler, UpstreamError
from quicedge.upstream.breaker import Breaker, Call
from quicedge.upstream.deadline import Deadline
from quicedge.upstream.proxy_header import Peer
from quicedge.upstream.retry_budget import RetryBudget
from quicedge.upstream.server import Server
from quicedge.upstream.stream import Servers, UpstreamStream


class RecentQuantile:
    """A quantile of the last HEDGE_SAMPLES values; None: there are too few yet."""

    def __init__(self, share: float) -> None:
        self.value: float | None = None
        self._share = share
        self._recent: deque[float] = deque(maxlen=HEDGE_SAMPLES)
        self._new = 0

    def note(self, value: float) -> None:
        """A value was observed."""
        self._recent.append(value)
        self._new += 1
        if self._new >= HEDGE_REFRESH and len(self._recent) >= HEDGE_MIN_SAMPLES:
            self._new = 0
            ordered = sorted(self._recent)
            self.value = ordered[int(self._share * (len(ordered) - 1))]


class Hedging:
    """When to send second attempts, and how many; `counts` are those of the upstream."""

    def __init__(self, settings: Hedge, counts: dict[HedgeResult, int]) -> None:
        self.counts = counts
        for result in HedgeResult:
            counts.setdefault(result, 0)
        self._after = settings.after
        self._observed: RecentQuantile | None = None
        if isinstance(settings.after, str):
            self._observed = RecentQuantile(int(settings.after.removeprefix("p")) / 100)
        self._budget = RetryBudget(settings.max_share)

    def covers(self, request: Request) -> bool:
        """Whether a second attempt of a request would do no harm."""
        return request.ended and request.method in (b"GET", b"HEAD")

    def begin(self) -> float | None:
        """A request begins: the seconds until its second attempt; None: not known yet."""
        self._budget.request()
        if self._observed is not None:
            return self._observed.value
        assert not isinstance(self._after, str)
        return self._after

    def observe(self, seconds: float) -> None:
        """A first attempt has taken so long, or longer if it was cancelled."""
        if self._observed is not None:
            self._observed.note(seconds)

    def allow(self, retries: RetryBudget) -> bool:
        """Whether a second attempt may be made; that attempt is counted, as a retry too."""
        return self._budget.take() and retries.take()


class HedgedServers(Servers, Protocol):
    """The servers of hedged requests (`group.Upstream`)."""

    breaker: Breaker | None


class _Attempt:
    """One attempt, and the `ResponseHandler` of all that arrives until it is decided."""

    __slots__ = ("_owner", "is_running", "stream")

    def __init__(self, owner: HedgedStream, avoided: frozenset[Server] = frozenset()) -> None:
        self._owner = owner
        self.is_running = True
        self.stream = UpstreamStream(
            owner.group, owner.request, self, owner.client, owner.peer, avoided=avoided
        )

    def cancel(self) -> None:
        """End it, if it is running."""
        if self.is_running:
            self.is_running = False
            self.stream.abort()

    def informational(self, response: Response) -> None:
        handler = self._owner.take(self, None)
        if handler is not None:
            handler.informational(response)

    def response(self, response: Response) -> None:
        handler = self._owner.take(self, response.status)
        if handler is not None:
            handler.response(response)

    def whole(self, response: Response, data: bytes) -> None:
        handler = self._owner.take(self, response.status)
        if handler is not None:
            handler.whole(response, data)

    def data(self, data: bytes) -> None:
        """It has been handed over by then."""

    def end(self, trailers: Sequence[Field]) -> None:
        """Likewise."""

    def failed(self, error: UpstreamError) -> None:
        self._owner.attempt_failed(self, error)

    def pause_request(self) -> None:
        """There is no body."""

    def resume_request(self) -> None:
        """There is no body."""


class HedgedStream:
    """The `OriginStream` of a request that may be sent to two servers; call `start` first."""

    __slots__ = (
        "_call", "_deadline", "_error", "_first", "_handler", "_hedging", "_paused", "_second",
        "_stalled", "_started", "_taken", "client", "group", "hedge", "peer", "request",
    )  # fmt: skip

    def __init__(
        self,
        group: HedgedServers,
        hedging: Hedging,
        request: Request,
        handler: ResponseHandler,
        client: Client | None,
        peer: Peer | None,
        call: Call | None,
    ) -> None:
        self.group = group
        self.request = request
        self.client = client
        self.peer = peer
        self.hedge: HedgeResult | None = None
        """What became of the second attempt; None: there was no need for one, or it is running."""
        self._hedging = hedging
        self._handler = handler
        self._call = call
        self._paused = self._stalled = False
        self._deadline: Deadline | None = None
        self._started = group.loop.time()
        # Forgotten when it is decided which one is taken, or over: they refer to this object.
        self._first: _Attempt | None = _Attempt(self)
        self._second: _Attempt | None = None
        self._error: UpstreamError | None = None
        """How the first attempt has failed."""
        self._taken = self._first.stream
        """That of the attempt that is taken, or is most likely to be."""

    def start(self) -> None:
        """Start the first attempt."""
        delay = self._hedging.begin()
        if delay is not None:
            self._deadline = self.group.deadlines.take(self._due)
            self._deadline.set(delay)
        self._taken.start()

    def _due(self) -> None:
        """The first attempt takes long: start a second one."""
        self._drop_deadline()
        breaker, selection = self.group.breaker, self.group.selection
        avoided = selection.unfit_for_second(self._taken.chosen)
        if (
            avoided is None
            or (breaker is not None and breaker.state is not Circuit.CLOSED)
            or not self._hedging.allow(selection.retry_budget)
        ):
            self._conclude(HedgeResult.REFUSED)
            return
        self._second = _Attempt(self, avoided)
        self._second.stream.stalled = self._stalled
        if self._paused:
            self._second.stream.pause()
        self._second.stream.start()

    # --- what becomes of the attempts -----------------------------------------------------------

    def take(self, attempt: _Attempt, status: int | None) -> ResponseHandler | None:
        """A response has begun (None: an interim one); returns who gets it, if it is the one."""
        first, second = self._first, self._second
        if first is None:
            return None
        if attempt is second and status is not None and status >= 500 and first.is_running:
            attempt.cancel()
            self._conclude(HedgeResult.LOST)
            return None
        self._forget_attempts()
        self._taken = attempt.stream
        if first.is_running:
            self._hedging.observe(self.group.loop.time() - self._started)
        if attempt is second:
            self._conclude(HedgeResult.WON)
            first.cancel()
        elif second is not None and second.is_running:
            self._conclude(HedgeResult.LOST)
            second.cancel()
        attempt.stream.hand_to(self._handler, self._call)
        if self._call is not None and status is not None:
            self._call.answered(status)
        return self._handler

    def attempt_failed(self, attempt: _Attempt, error: UpstreamError) -> None:
        """An attempt has failed before a response, or whoever handles its response has."""
        attempt.is_running = False
        first, second = self._first, self._second
        if first is not None:
            if attempt is second:
                self._conclude(HedgeResult.LOST)
                if first.is_running:
                    return
                error = self._error or error
            elif second is not None and second.is_running:
                self._error = error
                self._taken = second.stream
                return
            if self._call is not None:
                self._call.failed(error.kind)
        self._forget_attempts()
        self._handler.failed(error)

    def _forget_attempts(self) -> None:
        self._first = self._second = None
        self._drop_deadline()

    def _conclude(self, result: HedgeResult) -> None:
        self.hedge = result
        self._hedging.counts[result] += 1

    def _drop_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            self.group.deadlines.give_back(deadline)

    # --- OriginStream ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """There is no body."""

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """There is no body."""

    def abort(self) -> None:
        if self._first is None:
            self._taken.abort()
            return
        running, second = self._running(), self._second
        self._forget_attempts()
        if self._call is not None:
            self._call.abandoned()
        if second in running:
            self._conclude(HedgeResult.LOST)
        for attempt in running:
            attempt.cancel()

    def pause(self) -> None:
        self._paused = True
        for stream in self._streams():
            stream.pause()

    def resume(self) -> None:
        self._paused = False
        for stream in self._streams():
            stream.resume()

    def _running(self) -> list[_Attempt]:
        both = (self._first, self._second)
        return [item for item in both if item is not None and item.is_running]

    def _streams(self) -> list[UpstreamStream]:
        if self._first is None:
            return [self._taken]
        return [attempt.stream for attempt in self._running()]

    @property
    def stalled(self) -> bool:
        return self._stalled

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        self._stalled = stalled
        for stream in self._streams():
            stream.stalled = stalled

    @property
    def server(self) -> str:
        return self._taken.server

    @property
    def queue_seconds(self) -> float:
        return self._taken.queue_seconds

    @property
    def connect_seconds(self) -> float:
        return self._taken.connect_seconds

    @property
    def http_version(self) -> HttpVersion | None:
        return self._taken.http_version

    @property
    def scheme(self) -> str:
        return self._taken.scheme

    @property
    def retries(self) -> int:
        return self._taken.retries
