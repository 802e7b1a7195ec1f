"""Path normalization for routing (RFC 3986 section 6.2.2), and detection of ambiguous paths.

Origins get the path as it was received. Routing must see it the way they will interpret it:
otherwise `/public/../admin` would pass by the rules for `/public`.
"""

from __future__ import annotations

import re

# unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"                  (RFC 3986 section 2.3)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")

_DOTS = re.compile(
    rb"(?:/|\\|%2f|%5c) (?:\.|%2e){1,2} (?:[/\\;?]|%2f|%5c|%3b|$)", re.IGNORECASE | re.VERBOSE
)
"""Anything that some server treats as a dot segment."""
_SEPARATOR = re.compile(rb"\\|%2f|%5c", re.IGNORECASE)
_MERGED = re.compile(rb"/{2,}")
_PARAMETERS = re.compile(rb"(?:;|%3b)[^/]*", re.IGNORECASE)


def normal_path(target: bytes) -> bytes:
    """The path of a target, without its query, in normal form.

    Encoded unreserved characters are decoded, other encodings have upper-case digits, and dot
    segments are resolved. Consecutive slashes are not merged: they make a different path.
    """
    path = target.partition(b"?")[0]
    if b"%" in path:
        path = _ENCODED.sub(_decode_unreserved, path)
    if b"/." in path:
        path = _resolve(path)
    return path


def whole_segments(prefix: str | None) -> bytes:
    """A prefix of paths in normal form, without a slash at its end."""
    return b"" if prefix is None else normal_path(prefix.encode()).rstrip(b"/")


def is_ambiguous(target: bytes) -> bool:
    """Whether servers disagree about the dot segments of a path.

    Some decode `%2F` or treat a backslash as a slash before they resolve dot segments, some strip
    `;...` from a segment first, some merge slashes. If a path resolves differently for any of them,
    the origin could serve a resource outside the matched route.
    """
    path = target.partition(b"?")[0]
    # Every path that matches contains one of these; most paths contain none.
    if not (b"/." in path or b"%2" in path or b"%5" in path or b"\\" in path):
        return False
    if not _DOTS.search(path):
        return False
    return _resolve(_as_lenient(path)) != _as_lenient(normal_path(path))


def with_plain_slashes(target: bytes) -> bytes:
    """The normal path of a target as servers see it that decode `%2F`, take a backslash for a
    slash, and merge slashes."""
    path = normal_path(target)
    if b"//" in path or b"\\" in path or b"%" in path:
        path = _MERGED.sub(b"/", _SEPARATOR.sub(b"/", path))
    return path


def _as_lenient(path: bytes) -> bytes:
    """A path as the most lenient server interprets it."""
    path = _ENCODED.sub(_decode_unreserved, path)
    path = _SEPARATOR.sub(b"/", path)
    path = _PARAMETERS.sub(b"", path)
    return _MERGED.sub(b"/", path)


def _decode_unreserved(match: re.Match[bytes]) -> bytes:
    octet = int(match[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else match[0].upper()


def _resolve(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 5.2.4)."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
