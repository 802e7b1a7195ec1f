"""Requests that wait before they are started: for memory, or for what their protocol demands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from quicedge.config.limits import HELD_REQUEST_TIMEOUT
from quicedge.downstream.response_account import ResponseAccount
from quicedge.http.message import Field, Request
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.gateway import Gateway
from quicedge.proxy.response_memory import Waiter


class Stream(Protocol):
    """The stream of a request, which has an exchange once it is started."""

    stream_id: int
    exchange: Exchange | None

    def consumed(self, nbytes: int) -> None:
        """Return the flow-control credit of request body bytes."""


AnyStream = TypeVar("AnyStream", bound=Stream)


@dataclass(slots=True)
class HeldRequest(Generic[AnyStream]):
    """A request that waits, and the body received so far.

    The body is not credited to the client, so the stream's flow-control window bounds it.
    """

    stream: AnyStream
    request: Request
    since: float
    """When it was received."""
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    trailers: Sequence[Field] = ()


class HeldRequests(Generic[AnyStream]):
    """The held requests of one session, by stream.

    `may_run` returns whether a request may start, `start` starts one, `refuse` answers one that
    waited for HELD_REQUEST_TIMEOUT. While the client's share of the memory is used up, nothing is
    started and `waiter` queues for it.
    """

    __slots__ = ("_gateway", "_may_run", "_memory", "_refuse", "_start", "_waiter", "requests")

    def __init__(
        self,
        gateway: Gateway,
        memory: ResponseAccount,
        waiter: Waiter,
        *,
        may_run: Callable[[Request], bool],
        start: Callable[[AnyStream, Request], object],
        refuse: Callable[[AnyStream, Request], object],
    ) -> None:
        self._gateway = gateway
        self._memory = memory
        self._waiter = waiter
        self._may_run = may_run
        self._start = start
        self._refuse = refuse
        self.requests: dict[int, HeldRequest[AnyStream]] = {}
        """By stream; to be read only."""

    def __bool__(self) -> bool:
        return bool(self.requests)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self.requests

    def hold(self, stream: AnyStream, request: Request) -> None:
        """Let a request wait."""
        self.requests[stream.stream_id] = HeldRequest(stream, request, self._gateway.now())
        self.wait_for_memory()

    def data(self, stream_id: int, data: bytes) -> None:
        """Content of a held request has arrived."""
        self.requests[stream_id].body += data

    def end(self, stream_id: int, trailers: Sequence[Field] = ()) -> None:
        """A held request is complete."""
        held = self.requests[stream_id]
        held.ended, held.trailers = True, trailers

    def forget(self, stream_id: int) -> None:
        """Drop a held request, if there is one: it was abandoned."""
        held = self.requests.pop(stream_id, None)
        if held is not None and held.body:
            held.stream.consumed(len(held.body))

    def clear(self) -> None:
        """The connection is lost: call it last, and once."""
        self.requests.clear()
        self._gateway.policy.response_memory.leave(self._waiter)
        # They lead to the session, which leads here: without them it is freed at once.
        del self._waiter, self._may_run, self._start, self._refuse

    def wait_for_memory(self) -> None:
        """Queue for memory if that is what the requests wait for."""
        if self.requests and self._memory.is_short:
            self._gateway.policy.response_memory.wait(self._waiter)

    def release(self) -> None:
        """Start the requests that no longer have to wait."""
        for stream_id, held in list(self.requests.items()):
            if self._memory.is_short:
                return
            if not self._may_run(held.request):
                continue
            del self.requests[stream_id]
            self._resume(held)

    def _resume(self, held: HeldRequest[AnyStream]) -> None:
        stream = held.stream
        self._start(stream, held.request)
        if held.body:
            if stream.exchange is None:
                stream.consumed(len(held.body))
            else:
                stream.exchange.request_data(bytes(held.body))
        if held.ended and stream.exchange is not None:
            stream.exchange.request_end(held.trailers)

    def refuse_late(self, now: float) -> None:
        """Refuse those that waited too long."""
        late = [held for held in self.requests.values() if now - held.since > HELD_REQUEST_TIMEOUT]
        for held in late:
            self.forget(held.stream.stream_id)
            self._refuse(held.stream, held.request)
