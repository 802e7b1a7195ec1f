"""A string that a regular expression matches, for the usual ones of configurations."""

from __future__ import annotations

import re

from quicedge.migrate.verify.locations import matches

_CLASSES = {"d": "1", "w": "a", "s": "%20", "D": "a", "W": "-", "S": "a"}
"""A member of each class that has an escape."""
_ANCHORS = frozenset("bBAzZG")
_GROUP = re.compile(r"\(\?(?:P?<(?P<name>\w+)>|(?P<kind>[:=!]|<[=!]|[a-z]+\)))")


def sample_of(pattern: str, *, ignore_case: bool = False, anything: str = "sample") -> str | None:
    """A string that the pattern matches, with `anything` where it leaves a choice; None: this
    pattern is beyond us."""
    try:
        text = _Sampler(pattern, anything).alternatives()
    except (IndexError, ValueError):
        return None
    return text if matches(pattern, text, ignore_case=ignore_case) else None


class _Sampler:
    """Reads a pattern from left to right and writes what matches."""

    def __init__(self, pattern: str, anything: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._anything = anything

    def alternatives(self) -> str:
        """The first of several alternatives; reads all of them."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        return first

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _sequence(self) -> str:
        written = ""
        while (char := self._peek()) and char not in "|)":
            written += self._repeated(self._one())
        return written

    def _repeated(self, one: str) -> str:
        """One atom with its quantifier."""
        quantifier = self._peek()
        if quantifier not in ("*", "+", "?", "{") or not quantifier:
            return one
        self._at += 1
        times = 1
        if quantifier == "{":
            end = self._pattern.index("}", self._at)
            least = self._pattern[self._at : end].partition(",")[0]
            times = max(int(least or 0), 1)
            self._at = end + 1
        if self._peek() in ("?", "+"):
            self._at += 1
        return one * times

    def _one(self) -> str:
        char = self._next()
        if char == "\\":
            escaped = self._next()
            return "" if escaped in _ANCHORS else _CLASSES.get(escaped, escaped)
        if char in "^$":
            return ""
        if char == ".":
            return self._anything if self._peek() in ("*", "+") else "a"
        if char == "[":
            member = self._member()
            many = self._peek() in ("*", "+") and member == self._anything[:1]
            return self._anything if many else member
        if char == "(":
            return self._group()
        return char

    def _group(self) -> str:
        self._at -= 1
        special = _GROUP.match(self._pattern, self._at)
        self._at = special.end() if special else self._at + 1
        kind = special["kind"] if special else None
        if kind and kind.endswith(")"):
            return ""  # Flags such as (?i).
        text = self.alternatives()
        if self._next() != ")":
            raise ValueError("unbalanced")
        return "" if kind in ("!", "<!", "<=", "=") else text

    def _member(self) -> str:
        """A member of a class in brackets."""
        start = self._at
        if self._peek() == "^":
            self._at += 1
        if self._peek() == "]":
            self._at += 1
        while self._pattern[self._at] != "]":
            self._at += 2 if self._peek() == "\\" else 1
        self._at += 1
        members = re.compile("[" + self._pattern[start : self._at])
        for candidate in (*self._anything[:1], *"a1A-_./%"):
            if members.fullmatch(candidate):
                return candidate
        raise ValueError("no member")
