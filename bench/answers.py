"""What servers that answer themselves say: the embedded origin's `/download` and `/upload`."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import parse_qs, urlsplit

BLOCK = bytes(range(256)) * 256


def download_size(target: str) -> int:
    """Bytes that a `/download?size=N` asks for."""
    return int(parse_qs(urlsplit(target).query)["size"][0])


def body(size: int) -> bytes:
    """The content of `/download?size=N`."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def digest(size: int) -> str:
    """SHA-256 of the content of `/download?size=N`."""
    sha = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        sha.update(BLOCK)
    sha.update(BLOCK[: size % len(BLOCK)])
    return sha.hexdigest()


def receipt(sha: str, size: int) -> bytes:
    """The answer of `/upload`."""
    return json.dumps({"bytes": size, "sha256": sha}).encode() + b"\n"
