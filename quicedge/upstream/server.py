"""One origin server: its connection pool, and the requests that wait for a connection."""

from __future__ import annotations

import asyncio
import functools
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from quicedge.config import limits
from quicedge.config.schema import OriginProtocol
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.semantics import is_idempotent
from quicedge.shares import Client, FairQueue, Pool, to_reclaim
from quicedge.upstream.address import Address
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connect import Connector
from quicedge.upstream.connection import Counters, OriginConnection
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.health import Health
from quicedge.upstream.latency import Latency
from quicedge.upstream.retry import Retry

if TYPE_CHECKING:
    from quicedge.upstream.h2 import H2Connection

log = structlog.get_logger(__name__)


class Waiter(Protocol):
    """A request that needs a connection (`stream.UpstreamStream`)."""

    method: bytes
    client: Client | None
    """The client that made the request; None: the edge itself."""
    stalled: bool
    """Its client makes no progress (`base.OriginStream`)."""

    introduction: bytes | None
    """The PROXY header of connections that may carry it; None: any may."""

    def give_up(self) -> None:
        """Others wait for its slot: fail, and call `Server.leave`."""

    def attach(self, connection: OriginConnection) -> None:
        """Start the request on a connection with capacity, immediately."""

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None:
        """No connection can be established."""

    def reassign(self) -> None:
        """The server has left its upstream: wait for another one."""


class Server:
    """The connection pool of one server.

    A request gets the most recently used connection, so that the others can become idle and close;
    else a new one; else it waits for its turn. The number of concurrent requests is bounded by the
    capacity of the connections and shared fairly between clients (`shares.Pool`). While requests
    wait, `reclaim` ends those of stalled clients.

    Per request: `submit`, then `withdraw` if it is given up before `Waiter.attach`, or `leave` when
    an attached request has ended. `retire` when few requests are still to come, `depart` or `stop`
    when none is; `stop` precedes `close`.
    """

    def __init__(
        self,
        address: Address,
        config: UpstreamConfig,
        connector: Connector,
        loop: asyncio.AbstractEventLoop,
        *,
        main: Server | None = None,
        weight: float = 1,
        tier: int = 0,
    ) -> None:
        """`main`: this is a second pool for the same address, for its tunnels."""
        self.address = address
        self.main: Server = self if main is None else main
        self.tunnels: Server = self
        """The pool for requests for tunnels."""
        self.counters: Counters = Counters() if main is None else main.counters
        self.health: Health = (
            Health(address.text, config.slow_start) if main is None else main.health
        )
        self.tier = tier
        self.latency = Latency()
        self.base_weight = weight
        """Its weight once its slow start is over."""
        self.running = 0
        """Running requests that chose this server (`stream.UpstreamStream`)."""
        self._recheck: asyncio.TimerHandle | None = None
        self._config = config
        self._connector = connector
        self._loop = loop
        self._connections: dict[OriginConnection, None] = {}
        self._retired: dict[OriginConnection, None] = {}
        self._ready: dict[OriginConnection, None] = {}
        self._introduced: dict[OriginConnection, bytes] = {}
        """The PROXY header that was sent on connections, if the server wants any."""
        # Requests also wait for connections that are being opened: all that may be.
        places = max(limits.UPSTREAM_MAX_WAITING, config.max_connections)
        self._waiting: FairQueue[Waiter] = FairQueue(places)
        self._served: dict[Waiter, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._logged_repairs: set[str] = set()
        """Deviations that were already logged, once each."""
        self._lacks_tunnels = False
        """Logged that it offers no extended CONNECT."""
        self._retiring = False
        """No connection is kept open for further requests."""
        self._closing = False
        """No request is accepted."""
        self._empty: asyncio.Event | None = None
        # Whether connections are shared (HTTP/2); None until ALPN has decided.
        self._shared: bool | None = config.protocol is OriginProtocol.H2
        if config.protocol is OriginProtocol.AUTO and address.tls:
            self._shared = None
        if self._shared is not False:
            # Before requests wait for it. Without HTTP/2 to origins it would be a megabyte for
            # nothing.
            import quicedge.upstream.h2  # noqa: F401
        self._max_streams = limits.UPSTREAM_H2_MAX_STREAMS
        self._slots = Pool(self._most_requests())

    # --- requests -------------------------------------------------------------------------------

    def submit(self, waiter: Waiter, fresh: bool = False) -> None:
        """Attach `waiter` to a connection, now or later; raises UpstreamError if it cannot wait.

        `fresh`: an idle connection turned out to be dead, so no other idle one is used either.
        """
        if self._closing:
            raise UpstreamError(OriginFailure.NO_SERVER, f"{self.address.text}: shutting down")
        if fresh:
            for connection in list(self._ready):
                if not connection.active:
                    connection.close()
        if self._slots.may_take(waiter.client):
            ready = self._take(waiter)
            if ready is not None:
                self._attach(waiter, ready)
                return
        if self._may_not_wait() or not self._waiting.put(waiter, waiter.client):
            raise UpstreamError(
                OriginFailure.OVERLOADED, f"{self.address.text}: too many waiting requests"
            )
        self._connect_more()

    def refuses(self, client: Client | None) -> bool:
        """Whether a request of this client cannot be served at once and must not wait."""
        is_served = self._ready and self._slots.may_take(client)
        return not is_served and self._may_not_wait()

    def _may_not_wait(self) -> bool:
        """Whether as many requests wait as may."""
        most = self._config.max_waiting
        # Those that find a free place wait for their connection alone.
        return most is not None and len(self._waiting) - self._slots.free >= most

    def withdraw(self, waiter: Waiter) -> None:
        """Remove a request that was given up while it waited."""
        self._waiting.remove(waiter, waiter.client)

    def leave(self, waiter: Waiter) -> None:
        """Release the slot of a request, or of an attempt, that has ended."""
        if waiter in self._served:
            del self._served[waiter]
            self._slots.take(waiter.client, -1)
            if self._waiting.networks:
                self._serve()

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for a connection."""
        return bool(self._waiting)

    def reclaim(self) -> None:
        """End requests of stalled clients for waiting ones of clients that hold less."""
        stalled = [waiter for waiter in self._served if waiter.stalled]
        for waiter in to_reclaim(self._slots, stalled, self._waiting):
            waiter.give_up()

    def _attach(self, waiter: Waiter, connection: OriginConnection) -> None:
        self._slots.take(waiter.client)
        self._served[waiter] = None
        header = waiter.introduction
        if header is not None and connection not in self._introduced:
            assert isinstance(connection, H1Connection)
            self._introduced[connection] = header
            connection.introduce(header)
        waiter.attach(connection)

    def _most_requests(self) -> int:
        """Maximum number of concurrent requests; that of HTTP/1.1 until the protocol is known."""
        if self._shared:
            most = limits.UPSTREAM_H2_CONNECTIONS * self._max_streams
        else:
            most = self._config.max_connections
        limit = self._config.max_requests
        return most if limit is None else min(most, limit)

    def _take(self, waiter: Waiter) -> OriginConnection | None:
        ready, method = self._ready, waiter.method
        while ready:
            connection = next(reversed(ready))
            if waiter.introduction is not None:
                found = self._of_client(waiter.introduction)
                if found is None:
                    return None
                connection = found
            capacity = connection.capacity
            if capacity <= 1:
                del ready[connection]
            if capacity == 0:
                continue
            # Only an idempotent request could be retried if the connection was just closed.
            if is_idempotent(method) or connection.active or not connection.is_readable():
                return connection
            connection.terminate()
        return None

    def _of_client(self, header: bytes) -> OriginConnection | None:
        """The most recently used idle connection that is the client's, or nobody's yet."""
        introduced = self._introduced
        for connection in reversed(self._ready):
            if introduced.get(connection, header) == header:
                return connection
        return None

    def _make_room(self, count: int) -> None:
        """Close idle connections of other clients, for requests that cannot use them."""
        idle = [connection for connection in self._ready if connection in self._introduced]
        for connection in idle[:count]:
            # Before it says so itself: the caller goes on connecting.
            del self._connections[connection]
            self._retired[connection] = None
            connection.close()

    def _serve(self) -> None:
        while (waiter := self._waiting.next(self._slots.may_take)) is not None:
            connection = self._take(waiter)
            if connection is None:
                return
            self._waiting.take(waiter, waiter.client)
            self._attach(waiter, connection)

    # --- connections (connection.Owner) -----------------------------------------------------------

    def available(self, connection: OriginConnection) -> None:
        if connection not in self._connections:
            return
        if not self._closing:
            self._ready[connection] = None
            if self._waiting.networks:
                self._serve()
                if self._introduced:
                    self._connect_more()  # who waits may not use it
        if self._retiring and not connection.active:
            connection.close()

    def retired(self, connection: OriginConnection) -> None:
        self._ready.pop(connection, None)
        self._introduced.pop(connection, None)
        if connection in self._connections:
            del self._connections[connection]
            self._retired[connection] = None
            self._connect_more()

    def closed(self, connection: OriginConnection) -> None:
        self._ready.pop(connection, None)
        self._introduced.pop(connection, None)
        self._retired.pop(connection, None)
        self._connections.pop(connection, None)
        self._connect_more()
        self._tell_empty()

    def limited(self, max_streams: int) -> None:
        # Otherwise the shares would be those of a capacity that does not exist. An origin that
        # allows none for now is still connected to, and may then allow some.
        self._max_streams = max(max_streams, 1)
        self._slots.capacity = self._most_requests()

    def lacks_tunnels(self) -> None:
        if not self._lacks_tunnels:
            self._lacks_tunnels = True
            log.warning(
                "origin offers no WebSockets over HTTP/2",
                server=self.address.text,
                problem="SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441) is missing",
                remedy='protocol = "http/1.1" or "auto" for this upstream',
            )

    def repaired_response(self, what: str) -> None:
        if what not in self._logged_repairs:
            self._logged_repairs.add(what)
            log.warning("origin sends malformed responses", server=self.address.text, problem=what)

    def _connect_more(self) -> None:
        """Start as many connection attempts as waiting requests need and limits allow."""
        waiting, under_way = len(self._waiting), len(self._connecting)
        if self._closing or self._waiting.next(self._slots.may_take) is None:
            return
        if self._shared is False:
            wanted = waiting - under_way
            room = self._config.max_connections - len(self._connections) - under_way
            if room < wanted and self._introduced:
                self._make_room(wanted - room)
                room = self._config.max_connections - len(self._connections) - under_way
        else:
            # With HTTP/2 one connection may suffice: wait for the first one.
            wanted = 1 - under_way
            room = limits.UPSTREAM_H2_CONNECTIONS - len(self._connections)
        for _ in range(min(wanted, room)):
            self._start_connecting()

    def _start_connecting(self) -> None:
        task = self._loop.create_task(self._connect())
        self._connecting.add(task)
        # Not at the end of the coroutine: a task that is cancelled early never begins.
        task.add_done_callback(self._attempt_ended)

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        self._connect_more()
        self._tell_empty()

    async def _connect(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._connector.connect(functools.partial(self._made, task, time.monotonic()))
        except UpstreamError as error:
            self._connecting.discard(task)
            self._connect_failed(error)

    def _made(
        self, task: asyncio.Task[None], started: float, http2: bool
    ) -> H1Connection | H2Connection:
        self._connecting.discard(task)
        self.health.reached()
        self._shared = http2
        self._slots.capacity = self._most_requests()
        now = time.monotonic()
        make: type[H1Connection] | type[H2Connection] = H1Connection
        if http2:
            from quicedge.upstream.h2 import H2Connection

            make = H2Connection
        connection = make(
            self, self._config, self._loop, connected_at=now, connect_seconds=now - started
        )
        self._connections[connection] = None
        return connection

    def _connect_failed(self, error: UpstreamError) -> None:
        """Fail one waiting request per failed attempt, or all if there is no other connection."""
        self.health.unreachable(error)
        if self._recheck is None and not self._retiring:
            self._recheck = self._loop.call_later(limits.UPSTREAM_RECHECK, self._connect_again)
        failed = list(self._waiting)
        if self._connections or self._connecting:
            failed = failed[:1]
        for waiter in failed:
            self._waiting.remove(waiter, waiter.client)
        for waiter in failed:
            waiter.attempt_failed(error, Retry.ALWAYS)

    def _connect_again(self) -> None:
        """Try to reconnect, so that no client has to find out whether the server is back."""
        self._recheck = None
        if not self.health.is_reachable and not self._connecting:
            self._start_connecting()

    # --- the whole --------------------------------------------------------------------------------

    @property
    def weight(self) -> float:
        """The share of requests that is due to it, in relation to other servers."""
        return self.base_weight * self.health.share

    @property
    def load(self) -> int:
        """Running requests and tunnels, for balancing."""
        return self.running if self.tunnels is self else self.running + self.tunnels.running

    def stats(self) -> dict[str, int]:
        """`up`, connections (`open`, `idle`), requests (`active`, `waiting`), and `Counters`."""
        everything = [*self._connections, *self._retired]
        waiting = len(self._waiting)
        if self.tunnels is not self:
            everything += (*self.tunnels._connections, *self.tunnels._retired)
            waiting += len(self.tunnels._waiting)
        counters = self.counters
        return {
            "up": int(self.health.is_up and not self._closing),
            "open": len(everything),
            "idle": sum(not connection.active for connection in everything),
            "active": sum(connection.active for connection in everything),
            "waiting": waiting,
            "requests": counters.requests,
            "failures": counters.failures,
            "retries": counters.retries,
            "bytes_sent": counters.bytes_sent,
            "bytes_received": counters.bytes_received,
        }

    def retire(self) -> None:
        """Serve the requests that are on their way; close each connection when it becomes idle.

        A reload must not fail them: they wait, are retried, or pass a filter that takes its time.
        """
        self._retiring = True
        if self._recheck is not None:
            self._recheck.cancel()
        for connection in list(self._connections):
            if not connection.active:
                connection.close()

    def stop(self) -> None:
        """Accept no more requests; those that wait fail."""
        error = UpstreamError(OriginFailure.NO_SERVER, f"{self.address.text}: shutting down")
        for waiter in self._stop_accepting():
            waiter.attempt_failed(error, Retry.NEVER)

    def depart(self) -> None:
        """Leave the upstream: what runs ends here, and what waits goes to other servers."""
        for waiter in self._stop_accepting():
            waiter.reassign()

    def _stop_accepting(self) -> list[Waiter]:
        """Close all but what runs; returns the requests that wait."""
        self._closing = True
        waiting = list(self._waiting)
        for task in self._connecting:
            task.cancel()
        self.retire()
        for waiter in waiting:
            self._waiting.remove(waiter, waiter.client)
        return waiting

    @property
    def is_empty(self) -> bool:
        """Whether it has no connections."""
        return not (self._connections or self._retired or self._connecting)

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for running requests, then close all; call after `stop`."""
        self._empty = asyncio.Event()
        self._tell_empty()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for connection in [*self._connections, *self._retired]:
                connection.terminate()
            # What the event loop has not reported as closed by then ends with the process.
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.UPSTREAM_TERMINATE_TIMEOUT):
                    await self._empty.wait()

    def _tell_empty(self) -> None:
        if self._empty is not None and self.is_empty:
            self._empty.set()
