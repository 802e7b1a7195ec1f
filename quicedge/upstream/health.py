"""Health of origin servers, from connection attempts and responses (passive) and from checks
(active)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import structlog

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Field, Request, Response
from quicedge.upstream.address import Address
from quicedge.upstream.base import OriginStream, ResponseHandler, UpstreamError, in_pieces

Opener = Callable[[Request, ResponseHandler], OriginStream]

log = structlog.get_logger(__name__)


class Health:
    """The health of one server: the last connection attempt, the results of its checks, and
    whether it is ejected because its requests failed.

    `slow_start`: seconds in which a server that is up again comes to its full share of requests.
    """

    __slots__ = (
        "_checks_failed", "_clock", "_ejected_until", "_ejections", "_failures", "_reachable",
        "_server", "_slow_start", "_up_since",
    )  # fmt: skip

    def __init__(
        self, server: str, slow_start: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._slow_start = slow_start
        self._clock = clock
        self._reachable = True
        self._checks_failed = 0
        self._failures = 0
        """Failed requests in a row."""
        self._ejections = 0
        """In a row: a server that fails again at once is ejected for longer."""
        self._ejected_until = 0.0
        self._up_since = -math.inf

    @property
    def is_up(self) -> bool:
        """Whether requests should be sent to it."""
        return (
            self._reachable
            and self._checks_failed < limits.UPSTREAM_CHECK_FALL
            and not self.is_ejected
        )

    @property
    def is_ejected(self) -> bool:
        """Whether it gets no requests for a while because others have failed."""
        return bool(self._ejected_until) and self._clock() < self._ejected_until

    @property
    def share(self) -> float:
        """Its share of the requests that are due to it: less than 1 during a slow start."""
        if not self._slow_start:
            return 1.0
        since = max(self._up_since, self._ejected_until) if self._ejections else self._up_since
        return min(max((self._clock() - since) / self._slow_start, limits.SLOW_START_SHARE), 1.0)

    def joined(self) -> None:
        """It is new among servers that have had all requests so far."""
        self._up_since = self._clock()

    def request_succeeded(self) -> None:
        """It has answered a request."""
        if self._failures:
            self._failures = 0
        if self._ejections and self._clock() >= self._ejected_until + limits.EJECTION_FORGOTTEN:
            self._ejections = 0

    def request_failed(self, most: int) -> bool:
        """A request has failed; whether `most` have now failed in a row."""
        self._failures += 1
        return self._failures >= most

    def eject(self, seconds: float) -> None:
        """Send it no requests for `seconds`, longer if it was ejected before."""
        self._failures = 0
        self._ejections = min(self._ejections + 1, limits.EJECTIONS_COUNTED)
        duration = seconds * self._ejections
        self._ejected_until = self._clock() + duration
        log.warning("origin ejected: its requests fail", server=self._server, seconds=duration)

    @property
    def is_reachable(self) -> bool:
        """Whether the last connection attempt succeeded."""
        return self._reachable

    def reached(self) -> None:
        """A connection was established."""
        if not self._reachable:
            self._reachable = True
            self._up_since = self._clock()
            log.info("origin reachable again", server=self._server)

    def unreachable(self, error: UpstreamError) -> None:
        """A connection attempt failed: the server is down until one succeeds."""
        if self._reachable:
            self._reachable = False
            log.warning("origin unreachable", server=self._server, error=str(error))

    def checked(self, problem: str | None) -> None:
        """Record the result of a check; None: it succeeded."""
        was_up = self._checks_failed < limits.UPSTREAM_CHECK_FALL
        self._checks_failed = 0 if problem is None else self._checks_failed + 1
        is_up = self._checks_failed < limits.UPSTREAM_CHECK_FALL
        if was_up and not is_up:
            log.warning("origin health check failed", server=self._server, problem=problem)
        elif is_up and not was_up:
            self._up_since = self._clock()
            log.info("origin health check succeeded", server=self._server)


class Prober:
    """Requests `health_path` from one server every `health_interval` seconds.

    A status of 2xx or 3xx is a success; any other status, or no response within the interval, is a
    failure. `open_on_server` sends a request to this server.
    """

    def __init__(
        self,
        address: Address,
        config: UpstreamConfig,
        health: Health,
        open_on_server: Opener,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        assert config.health_path is not None
        self._path = config.health_path.encode()
        self._authority = (config.tls_server_name or address.authority).encode()
        self._scheme = b"https" if address.tls else b"http"
        self._interval = config.health_interval
        self._health = health
        self._open = open_on_server
        self._stream: OriginStream | None = None
        self._status = 0
        self._loop = loop
        self._timer: asyncio.Handle = loop.call_soon(self._check)

    def close(self) -> None:
        """Stop checking."""
        self._timer.cancel()
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def _check(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._check)
        if self._stream is not None:
            self._stream.abort()
            self._verdict(f"no answer within {self._interval:g} s")
        request = Request(
            b"GET", self._scheme, self._authority, self._path,
            [(b"user-agent", b"quicedge-health")], ended=True,
        )  # fmt: skip
        self._stream = self._open(request, self)

    def _verdict(self, problem: str | None) -> None:
        self._stream = None
        self._health.checked(problem)

    # --- upstream.base.ResponseHandler ----------------------------------------------------------

    def informational(self, response: Response) -> None:
        """Ignored."""

    def response(self, response: Response) -> None:
        self._status = response.status

    def data(self, data: bytes) -> None:
        """Ignored: the status decides."""

    def end(self, trailers: Sequence[Field]) -> None:
        self._verdict(None if 200 <= self._status < 400 else f"status {self._status}")

    def whole(self, response: Response, data: bytes) -> None:
        in_pieces(self, response, data)

    def failed(self, error: UpstreamError) -> None:
        self._verdict(str(error))

    def pause_request(self) -> None:
        """There is no body."""

    def resume_request(self) -> None:
        """There is no body."""
