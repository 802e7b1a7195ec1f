"""Media types of files by their extension."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Our own table: responses must not depend on what is installed on the machine.
_TEXT = {
    b"html": b"text/html", b"htm": b"text/html", b"css": b"text/css", b"txt": b"text/plain",
    b"js": b"text/javascript", b"mjs": b"text/javascript", b"csv": b"text/csv",
    b"md": b"text/markdown", b"xml": b"text/xml", b"ics": b"text/calendar", b"vtt": b"text/vtt",
}  # fmt: skip
TYPES: Mapping[bytes, bytes] = MappingProxyType(
    {name: kind + b"; charset=utf-8" for name, kind in _TEXT.items()}
    | {
        b"json": b"application/json", b"map": b"application/json", b"pdf": b"application/pdf",
        b"webmanifest": b"application/manifest+json", b"wasm": b"application/wasm",
        b"gz": b"application/gzip", b"tgz": b"application/gzip", b"zip": b"application/zip",
        b"svg": b"image/svg+xml", b"png": b"image/png", b"jpg": b"image/jpeg",
        b"jpeg": b"image/jpeg", b"gif": b"image/gif", b"webp": b"image/webp",
        b"avif": b"image/avif", b"ico": b"image/vnd.microsoft.icon", b"woff": b"font/woff",
        b"woff2": b"font/woff2", b"ttf": b"font/ttf", b"otf": b"font/otf", b"mp3": b"audio/mpeg",
        b"ogg": b"audio/ogg", b"wav": b"audio/wav", b"mp4": b"video/mp4", b"webm": b"video/webm",
        b"atom": b"application/atom+xml", b"rss": b"application/rss+xml",
        b"jsonld": b"application/ld+json",
    }
)  # fmt: skip
UNKNOWN = b"application/octet-stream"


def content_type(name: bytes, types: Mapping[bytes, bytes] = TYPES) -> bytes:
    """The media type for the extension of a file name; text is assumed to be UTF-8."""
    return types.get(name.lower().rpartition(b".")[2], UNKNOWN)
