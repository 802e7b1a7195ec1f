"""The worker's memory for responses, shared fairly between clients (`shares.Pool`).

For a client that holds its share no new requests are started, and little is buffered for running
ones. Nothing is refused: it continues as it reads its responses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quicedge.config.limits import MAX_CONNECTIONS
from quicedge.shares import Client, FairQueue, Pool


class Waiter(Protocol):
    """A connection with requests that wait for memory (`downstream.http3.Http3Session`)."""

    @property
    def share(self) -> Client:
        """The client that its memory is charged to."""

    def memory_is_free(self) -> None:
        """Start some of the waiting requests; call `ResponseMemory.wait` again for the others."""


class ResponseMemory:
    """The memory held by all clients, and the connections that wait for memory.

    `call_soon` runs a callback at the end of this event loop iteration.
    """

    def __init__(self, nbytes: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.pool = Pool(nbytes)
        self._call_soon = call_soon
        self._waiting: FairQueue[Waiter] = FairQueue(MAX_CONNECTIONS)
        self._serving = False

    def account(self, client: Client) -> Account:
        """Create the account of one connection."""
        return Account(self, client)

    def wait(self, waiter: Waiter) -> None:
        """Queue a connection: `memory_is_free` is called when it is its turn."""
        self._waiting.remove(waiter, waiter.share)
        self._waiting.put(waiter, waiter.share)

    def leave(self, waiter: Waiter) -> None:
        """Remove a connection from the queue."""
        self._waiting.remove(waiter, waiter.share)

    def given_back(self) -> None:
        """Memory was released: serve the queue at the end of the event loop iteration."""
        if self._waiting and not self._serving:
            self._serving = True
            self._call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        # Each at most once: one that waits again is served after the next release.
        for _ in range(len(self._waiting)):
            waiter = self._waiting.next(self.pool.may_take)
            if waiter is None:
                return
            self._waiting.take(waiter, waiter.share)
            waiter.memory_is_free()


class Account:
    """The memory held by one connection.

    Call `settle` whenever it may have changed, and with 0 at the end.
    """

    __slots__ = ("_client", "_memory", "held")

    def __init__(self, memory: ResponseMemory, client: Client) -> None:
        self._memory = memory
        self._client = client
        self.held = 0
        """Bytes at the last settlement."""

    def settle(self, nbytes: int) -> None:
        """Record that it holds `nbytes` now."""
        change = nbytes - self.held
        if change:
            self._memory.pool.take(self._client, change)
            self.held = nbytes
            if change < 0:
                self._memory.given_back()
