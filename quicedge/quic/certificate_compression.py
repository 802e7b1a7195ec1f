"""Compression of Certificate messages (RFC 8879).

Before a client's address is validated, a server may send three times what it received: long chains
take a round trip more, unless they are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import NamedTuple


class Compression(NamedTuple):
    """An algorithm for Certificate messages."""

    number: int
    """As in IANA's registry of certificate compression algorithms."""
    name: str
    compress: Callable[[bytes], bytes]


def _brotli(data: bytes) -> bytes:
    import brotli  # 0.5 MB of memory that only clients who ask for it cost

    compressed: bytes = brotli.compress(data)
    return compressed


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.compress(data, 19)


def _zlib(data: bytes) -> bytes:
    return zlib.compress(data, 9)


def _known() -> Iterable[Compression]:
    """Two are in libraries of the `compression` extra."""
    if find_spec("brotli") is not None:
        yield Compression(2, "brotli", _brotli)
    if find_spec("zstandard") is not None:
        yield Compression(3, "zstd", _zstd)
    yield Compression(1, "zlib", _zlib)


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
