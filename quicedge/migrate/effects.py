"""What of a request or response a difference between two edges can be seen in.

Lines of a report announce their differences with these, so that a verification can tell whether a
difference that it has seen was announced.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """Who sees it."""

    CLIENT = "client"
    """In the response."""
    ORIGIN = "origin"
    """In the forwarded request."""


class Aspect(StrEnum):
    """Where it is seen."""

    METHOD = "method"
    TARGET = "target"
    """Path and query."""
    HOST = "host"
    HEADER = "header"
    BODY = "body"
    STATUS = "status"
    """Of the response, with the content that belongs to it; or whether there is one at all."""
    SERVER = "server"
    """Which upstream is asked."""
    REACHED = "reached"
    """Whether origins are asked, and how often."""
    SCHEME = "scheme"
    """Plain HTTP is redirected to https."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One place in which a difference can be seen."""

    side: Side
    aspect: Aspect
    name: str = ""
    """Of a header field, in lower case; behind `error ` in error responses, and behind `101 ` in
    those that open a WebSocket; or one of these alone: all fields there. `404->405` of a status,
    or a half of it with the arrow; `encoding` of a target that only its encoding, repeated
    slashes and dot segments are different in. Empty: any."""

    def covers(self, other: Effect) -> bool:
        """Whether it announces the other one."""
        if self.side is not other.side or self.aspect is not other.aspect:
            return False
        if self.aspect is Aspect.STATUS and self.name.startswith("->"):
            return other.name.endswith(self.name)
        if self.aspect is Aspect.STATUS and self.name.endswith("->"):
            return other.name.startswith(self.name)
        where, _, name = other.name.rpartition(" ")
        return self.name in ("", other.name, where, name)

    def __str__(self) -> str:
        named = self.name and self.aspect is not Aspect.STATUS
        return f"{self.side}: {self.aspect} {self.name}" if named else f"{self.side}: {self.aspect}"
