"""Extensible priorities (RFC 9218)."""

from __future__ import annotations

import re
from typing import NamedTuple

# Dictionary members "u" (integer 0 to 7) and "i" (boolean) of RFC 9218 section 4; anything else
# in the structured field is ignored, as section 4 requires.
_MEMBER = re.compile(rb"(u=[0-7](?![0-9.])|i(?:=\?[01])?)(?:;[^,]*)?")


class Priority(NamedTuple):
    """Urgency from 0 (first) to 7 (last), and whether the response can be used incrementally."""

    urgency: int = 3
    incremental: bool = False


DEFAULT_PRIORITY = Priority()


def parse_priority(value: bytes) -> Priority:
    """Parse a `priority` field or PRIORITY_UPDATE; malformed parameters get their default."""
    urgency, incremental = DEFAULT_PRIORITY
    for part in value.split(b","):
        member = _MEMBER.fullmatch(part.strip())
        if member is None:
            continue
        text = member[1]
        if text.startswith(b"u="):
            urgency = int(text[2:])
        else:
            incremental = text in (b"i", b"i=?1")
    return Priority(urgency, incremental)
