"""Reads the requests to play from a file, in the format of `.http` files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from quicedge.migrate.verify.limits import MAX_SAMPLES
from quicedge.migrate.verify.message import Protocol, Sample

SEPARATOR = "###"
"""Begins a line between two requests."""

_VERSIONS = {"HTTP/1.1": Protocol.HTTP_1_1, "HTTP/2": Protocol.H2}


class RequestFileError(ValueError):
    """A line that is no request, with its place."""


def read_requests(path: Path) -> list[Sample]:
    """The requests of a file; raises RequestFileError."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise RequestFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RequestFileError(f"{path}:{line}: is not UTF-8") from error
    samples = list(_samples(path.name, text.replace("\r\n", "\n").split("\n")))
    if not samples:
        raise RequestFileError(f"{path}: no requests; write lines such as GET https://host/path")
    if len(samples) > MAX_SAMPLES:
        raise RequestFileError(f"{path}: {len(samples)} requests; at most {MAX_SAMPLES} are played")
    return samples


def _samples(name: str, lines: list[str]) -> Iterator[Sample]:
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, SEPARATOR], 1):
        if line.startswith(SEPARATOR):
            yield from _sample(name, block)
            block = []
        else:
            block.append((number, line))


def _sample(name: str, block: list[tuple[int, str]]) -> Iterator[Sample]:
    """The request of the lines between two separators; none if they are empty or comments."""
    lines = iter(block)
    for number, line in lines:  # noqa: B007
        if line.strip() and not line.startswith("#"):
            break
    else:
        return
    words = line.split()
    if len(words) not in (2, 3) or not words[0].isupper():
        raise RequestFileError(f"{name}:{number}: {line!r} is not METHOD URL")
    if not _is_url(words[1]):
        raise RequestFileError(f"{name}:{number}: {words[1]!r} is not an http or https URL")
    version = words[2] if len(words) == 3 else "HTTP/1.1"
    if version not in _VERSIONS:
        raise RequestFileError(f"{name}:{number}: {version!r} is not {' or '.join(_VERSIONS)}")
    headers = []
    for number, line in lines:
        if not line.strip():
            break
        if line.startswith("#"):
            continue
        field, colon, value = line.partition(":")
        if not colon or not field.strip():
            raise RequestFileError(f"{name}:{number}: {line!r} is not NAME: VALUE")
        headers.append((field.strip().lower(), value.strip()))
    body = "\n".join(line for _, line in lines).rstrip("\n")
    yield Sample(words[0], words[1], headers, body.encode(), _VERSIONS[version])


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
