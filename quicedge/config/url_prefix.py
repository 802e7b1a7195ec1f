"""Beginnings of URLs: what redirects of origins are compared with.

URLs are read as browsers read them, as far as that matters here: what a browser would take for
another host is no match.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PORTS = {b"http": 80, b"https": 443}

_URL = re.compile(
    rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//"
    rb"(\[[0-9A-Fa-f:.]+\]|[^/?#\\@:\[\]\x00-\x20\x7f]+)(?::([0-9]{0,5}))?"
    rb"(?=([/?#]|$))"
)
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")


class Place(NamedTuple):
    """A host as URLs name it, comparable: in lower case, with its port."""

    scheme: bytes
    """Empty: that of the page (`//host/`)."""
    host: bytes
    port: int | None
    """None: the scheme has no usual one, and none is given."""


def split_url(url: bytes) -> tuple[Place, bytes] | None:
    """The place that a URL is at, and what follows the host; None: it is relative, or has a user's
    name, or a host that browsers might read in another way."""
    match = _URL.match(url)
    if match is None:
        return None
    scheme = (match[1] or b"").lower()
    port = int(match[3]) if match[3] else DEFAULT_PORTS.get(scheme)
    return Place(scheme, match[2].lower().rstrip(b"."), port), url[match.end() :]


def path_below(path: bytes, prefix: bytes) -> bytes | None:
    """What follows `prefix`, whole segments, in a path with its query and fragment; None: the path
    is not below it. Only what is below it matches a prefix with a slash at its end."""
    start = prefix.rstrip(b"/")
    if not path.startswith(start):
        return None
    rest = path[len(start) :]
    if start and prefix != start:
        return rest if rest[:1] == b"/" else None
    return rest if not rest or rest[:1] in (b"/", b"?", b"#") else None


def joined(start: bytes, rest: bytes) -> bytes:
    """A URL or path and what follows it, with one slash between them. A path stays a path: a
    browser takes what follows two slashes for a host."""
    found = start.rstrip(b"/") + rest if rest[:1] == b"/" else start + rest
    if found[:1] in (b"/", b"\\"):
        return b"/" + found.lstrip(b"/\\")
    return found
