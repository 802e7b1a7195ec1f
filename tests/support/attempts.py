"""An upstream whose servers the test answers for, on a loop whose clock it moves."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from quicedge.config.schema import OriginServer
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.group import Upstream
from quicedge.upstream.retry import Retry
from quicedge.upstream.server import Server, Waiter


class Handle:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.is_cancelled = when, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """What an upstream needs of an event loop; `advance` runs what is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._handles: list[tuple[float, int, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle(when, lambda: call(*arguments))
        heapq.heappush(self._handles, (when, next(self._order), handle))
        return handle

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_at(self.now + delay, call, *arguments)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_at(self.now, call, *arguments)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._handles and self._handles[0][0] <= until:
            when, _, handle = heapq.heappop(self._handles)
            self.now = max(self.now, when)
            if not handle.is_cancelled:
                handle.call()
        self.now = until


class Sent:
    """A request at a server: the attempt and the connection in one."""

    connected_at = connect_seconds = 0.0
    is_duplex = takes_more = False

    def __init__(self, server: Server, waiter: Any) -> None:
        self.server, self.stream = server, waiter
        self.is_aborted = self.is_paused = False

    def start(self, request: Request, receiver: Any) -> Sent:
        return self

    def abort(self) -> None:
        self.is_aborted = True

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def answer(self, status: int = 200) -> None:
        self.stream.response(Response(status, [], b"1.1"))
        self.stream.data(b"body")
        self.stream.end_of_response(())

    def fail(self) -> None:
        error = UpstreamError(OriginFailure.RESET, self.server.address.text)
        self.stream.attempt_failed(error, Retry.NEVER)


class Client:
    """The handler of a response."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: UpstreamError | None = None

    def informational(self, response: Response) -> None:
        self.calls.append(str(response.status))

    def response(self, response: Response) -> None:
        self.calls.append(str(response.status))

    def data(self, data: bytes) -> None:
        self.calls.append("data")

    def end(self, trailers: Sequence[Field]) -> None:
        self.calls.append("end")

    def whole(self, response: Response, data: bytes) -> None:
        self.calls += [str(response.status), "whole"]

    def failed(self, error: UpstreamError) -> None:
        self.error = error
        self.calls.append(error.kind.value)

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


class AnsweredUpstream:
    """`sent` has the attempts, in order."""

    def __init__(self, servers: int = 2, tiers: tuple[int, ...] = (), **options: Any) -> None:
        self.loop = Loop()
        tiers = tiers or (0,) * servers
        servers_of_tiers: list[str | OriginServer] = [
            OriginServer(url=f"http://10.0.0.{n}:80", tier=tier) for n, tier in enumerate(tiers)
        ]
        config = UpstreamConfig(servers=servers_of_tiers, **options)
        self.group = Upstream("app", config, loop=self.loop)  # type: ignore[arg-type]
        self.sent: list[Sent] = []
        for server in self.group.servers:
            self._answer_for(server)

    def _answer_for(self, server: Server) -> None:
        def submit(waiter: Waiter, fresh: bool = False) -> None:
            sent = Sent(server, waiter)
            self.sent.append(sent)
            waiter.attach(sent)  # type: ignore[arg-type]

        server.submit = submit  # type: ignore[method-assign]

    def open(
        self, method: bytes = b"GET", *, ended: bool = True, protocol: bytes | None = None
    ) -> tuple[Any, Client]:
        request = Request(method, b"https", b"a.test", b"/", [], ended=ended, protocol=protocol)
        client = Client()
        return self.group.open(request, client), client

    def counts(self) -> dict[str, int]:
        return {name: n for name, n in self.group.state().hedges.items() if n}
