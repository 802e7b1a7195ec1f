"""Log lines at a bounded rate, with the number of times that each stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Reason = TypeVar("Reason", bound=Hashable)


class BoundedLog(Generic[Reason]):
    """Says how often something happened, at most every `interval` seconds per reason."""

    __slots__ = ("_counts", "_interval", "_said", "_say")

    def __init__(self, say: Callable[[Reason, int], None], interval: float) -> None:
        self._say = say
        self._interval = interval
        self._said: dict[Reason, float] = {}
        self._counts: Counter[Reason] = Counter()

    def note(self, reason: Reason, now: float) -> None:
        """It happened; `reason` is one of few."""
        self._counts[reason] += 1
        if now >= self._said.get(reason, float("-inf")) + self._interval:
            self._said[reason] = now
            self._say(reason, self._counts.pop(reason))
