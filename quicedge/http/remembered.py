"""Bounded memories of what was found out before: clients repeat themselves.

A full one forgets everything at once: what is in use is soon back, and clients that never repeat
anything cost no more than before. Look-ups are those of a set or a dict.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from quicedge.config.limits import REMEMBERED_NAME

Value = TypeVar("Value")


class RememberedNames(set[bytes]):
    """Names of fields that have passed a check; those of `always` are never forgotten."""

    __slots__ = ("_always", "_limit")

    def __init__(self, limit: int, always: Iterable[bytes] = ()) -> None:
        super().__init__(always)
        self._always = frozenset(self)
        self._limit = limit

    def remember(self, name: bytes) -> None:
        """Add a name, unless it is longer than honest ones are."""
        if len(name) <= REMEMBERED_NAME:
            if len(self) >= self._limit:
                self.intersection_update(self._always)
            self.add(name)


class Remembered(dict[bytes, Value]):
    """What texts of up to `longest` bytes were found to mean."""

    __slots__ = ("_limit", "_longest")

    def __init__(self, limit: int, longest: int) -> None:
        super().__init__()
        self._limit = limit
        self._longest = longest

    def remember(self, text: bytes, value: Value) -> None:
        """Add what a text means, unless it is too long."""
        if len(text) <= self._longest:
            if len(self) >= self._limit:
                self.clear()
            self[text] = value
