"""Places for requests: a bounded number of them is served at once, shared fairly among clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from quicedge.config import limits
from quicedge.http.errors import OriginFailure
from quicedge.shares import Client, FairQueue, Pool, to_reclaim


class Occupant(Protocol):
    """A request that needs a place."""

    client: Client | None
    stalled: bool
    holds_place: bool
    """Whether it occupies a place; set by `Places` alone."""

    def place_given(self) -> None:
        """It waited, and has its place now; must not give it back at once."""

    def fail(self, kind: OriginFailure, detail: str) -> None:
        """Fail the request; its place is given back."""


Item = TypeVar("Item", bound=Occupant)


class Places(Generic[Item]):
    """`what`: what a place is, for messages."""

    def __init__(self, number: int, what: str) -> None:
        self._pool = Pool(number)
        self._waiting: FairQueue[Item] = FairQueue(limits.UPSTREAM_MAX_WAITING)
        self._what = what

    @property
    def held(self) -> int:
        """The number of occupied places."""
        return self._pool.held

    @property
    def is_contended(self) -> bool:
        """Whether requests wait for places that others hold."""
        return bool(self._waiting)

    def take(self, item: Item) -> bool:
        """Whether a request has a place now; otherwise it waits for `place_given`, or fails."""
        if self._pool.may_take(item.client):
            self._hand(item)
            return True
        if not self._waiting.put(item, item.client):
            item.fail(OriginFailure.OVERLOADED, f"too many requests wait for {self._what}")
        return False

    def leave(self, item: Item) -> None:
        """A request has ended: it neither waits nor holds a place from now on."""
        waiting = self._waiting
        waiting.remove(item, item.client)
        if not item.holds_place:
            return
        item.holds_place = False
        self._pool.give_back(item.client)
        while (following := waiting.next(self._pool.may_take)) is not None:
            waiting.take(following, following.client)
            self._hand(following)
            following.place_given()

    def reclaim(self, running: Iterable[Item]) -> None:
        """Take places from stalled clients for waiting ones that hold less; call about once per
        second."""
        stalled = [item for item in running if item.stalled and item.holds_place]
        for item in to_reclaim(self._pool, stalled, self._waiting):
            item.fail(OriginFailure.STALLED, f"others wait for {self._what}")

    def _hand(self, item: Item) -> None:
        self._pool.take(item.client)
        item.holds_place = True
