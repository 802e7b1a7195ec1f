"""Compression of Certificate messages (RFC 8879).

Before a client's address is validated, a server may send three times what it received: long chains
take a round trip more, unless they are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple


def _optional(name: str) -> Any:
    """A module of the `compression` extra; None if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


brotli, zstandard = _optional("brotli"), _optional("zstandard")


class Compression(NamedTuple):
    """An algorithm for Certificate messages."""

    number: int
    """As in IANA's registry of certificate compression algorithms."""
    name: str
    compress: Callable[[bytes], bytes]


def _known() -> Iterable[Compression]:
    if brotli is not None:
        yield Compression(2, "brotli", brotli.compress)
    if zstandard is not None:
        yield Compression(3, "zstd", lambda data: zstandard.compress(data, 19))
    yield Compression(1, "zlib", lambda data: zlib.compress(data, 9))


COMPRESSIONS = tuple(_known())
"""Those that can be used here, smallest result first."""

UNCOMPRESSED = "none"
"""The name of no compression."""

_COMPRESSED_CERTIFICATE = 25
"""HandshakeType of the CompressedCertificate message."""


def choose(offered: Iterable[int]) -> Compression | None:
    """The best algorithm that a client offers."""
    return next((one for one in COMPRESSIONS if one.number in offered), None)


def compressed_message(compression: Compression, message: bytes) -> bytes:
    """A Certificate message compressed."""
    body = message[4:]
    data = compression.compress(body)
    content = b"%b%b%b%b" % (
        compression.number.to_bytes(2, "big"), len(body).to_bytes(3, "big"),
        len(data).to_bytes(3, "big"), data,
    )  # fmt: skip
    return bytes((_COMPRESSED_CERTIFICATE,)) + len(content).to_bytes(3, "big") + content
