"""The worker's memory for responses, shared out fairly among clients (`shares.Pool`).

A client that holds its share gets no new request started, and of those that run it buffers little;
nothing is refused, and as it takes what waits for it, it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quicedge.config.limits import MAX_CONNECTIONS, RESPONSE_MEMORY_GRAIN
from quicedge.shares import Client, FairQueue, Pool


class Waiter(Protocol):
    """A connection with requests that wait for memory (`downstream.http3.Http3Session`)."""

    @property
    def share(self) -> Client:
        """Whom what it holds is counted for."""

    def memory_is_free(self) -> None:
        """Start some of them; `ResponseMemory.wait` again for the others."""


class ResponseMemory:
    """What all clients hold, and the connections that wait for some of it.

    `call_soon` runs a callback at the end of this turn of the loop.
    """

    def __init__(self, nbytes: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.pool = Pool(nbytes)
        self._call_soon = call_soon
        self._waiting: FairQueue[Waiter] = FairQueue(MAX_CONNECTIONS)
        self._serving = False

    def account(self, client: Client) -> Account:
        """An account for one connection."""
        return Account(self, client)

    def wait(self, waiter: Waiter) -> None:
        """Call `memory_is_free` once its client's turn has come."""
        self._waiting.remove(waiter, waiter.share)
        self._waiting.put(waiter, waiter.share)

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer."""
        self._waiting.remove(waiter, waiter.share)

    def given_back(self) -> None:
        """There is more than before: those that wait may have it."""
        if self._waiting and not self._serving:
            self._serving = True
            self._call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        # Each once: one that goes on waiting is served when something is given back again.
        for _ in range(len(self._waiting)):
            waiter = self._waiting.next(self.pool.may_take)
            if waiter is None:
                return
            self._waiting.take(waiter, waiter.share)
            waiter.memory_is_free()


class Account:
    """What one connection holds. `settle` it whenever that may have changed, in the end with 0."""

    __slots__ = ("_client", "_memory", "held")

    def __init__(self, memory: ResponseMemory, client: Client) -> None:
        self._memory = memory
        self._client = client
        self.held = 0
        """Bytes at the last settlement."""

    @property
    def is_short(self) -> bool:
        """Whether the client holds its share of the memory, over all its connections."""
        return not self._memory.pool.may_take(self._client)

    def settle(self, nbytes: int) -> None:
        """It holds `nbytes` now, give or take RESPONSE_MEMORY_GRAIN."""
        change = nbytes - self.held
        if change and (abs(change) >= RESPONSE_MEMORY_GRAIN or not nbytes):
            self._memory.pool.take(self._client, change)
            self.held = nbytes
            if change < 0:
                self._memory.given_back()
