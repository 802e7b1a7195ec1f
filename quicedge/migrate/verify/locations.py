"""Which location of an nginx server handles a path, as nginx itself chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quicedge.migrate.nginx.locations import parts_of
from quicedge.migrate.nginx.source import Directive

_REGEX_MODIFIERS = ("~", "~*")


def locations_of(block: Directive) -> list[Directive]:
    return [one for one in block.body if one.name == "location" and one.block is not None]


def chain_for(block: Directive, path: str) -> list[Directive]:
    """The locations in a server or location, each in the one before, that handle a path."""
    found = _chosen(locations_of(block), path)
    return [] if found is None else [found, *chain_for(found, path)]


def _chosen(locations: Sequence[Directive], path: str) -> Directive | None:
    longest: Directive | None = None
    length = -1
    for location in locations:
        modifier, text = parts_of(location.args)
        if modifier == "=" and path == text:
            return location
        if modifier in ("", "^~") and path.startswith(text) and len(text) > length:
            longest, length = location, len(text)
    if longest is not None and parts_of(longest.args)[0] == "^~":
        return longest
    for location in locations:
        modifier, text = parts_of(location.args)
        if modifier in _REGEX_MODIFIERS and matches(text, path, ignore_case=modifier == "~*"):
            return location
    return longest


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether a regular expression of nginx's (PCRE) matches somewhere; what Python's does not know
    matches nothing."""
    pattern = pattern.replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
    try:
        return re.search(pattern, text, re.IGNORECASE if ignore_case else 0) is not None
    except re.error:
        return False
