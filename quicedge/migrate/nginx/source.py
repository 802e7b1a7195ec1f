"""Reading nginx's configuration with crossplane: a tree of directives, includes followed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quicedge.migrate.errors import SourceError

SHIPPED = frozenset(
    (
        "mime.types", "fastcgi_params", "fastcgi.conf", "scgi_params", "uwsgi_params",
        "proxy_params", "koi-utf", "koi-win", "win-utf",
    )
)  # fmt: skip
"""Files that come with nginx: they may be missing where its configuration is translated."""

_OF_HTTP = frozenset(
    ("server", "upstream", "map", "geo", "split_clients", "limit_req_zone", "limit_conn_zone")
)
"""Directives by which a file is recognized as a part of `http { }`."""

_NEEDS_QUOTES = re.compile(r"[\s;{}\"'#]|^$")
_MOST_SHOWN = 160
"""Characters of a directive in the report."""


@dataclass(eq=False)
class Directive:
    """A directive, perhaps with a block."""

    name: str
    args: list[str]
    file: str
    line: int
    block: list[Directive] | None = None
    included: list[Directive] = field(default_factory=list)
    """Of an `include`: the directives of its files, which are also in the block around it."""
    is_missing: bool = False
    """Of an `include`: the file is not there."""

    @property
    def text(self) -> str:
        words = [self.name, *map(_quoted, self.args)]
        if self.name == "if":
            words = ["if", f"({' '.join(words[1:])})"]
        line = " ".join(words) + (" { }" if self.block is not None else ";")
        line = " ".join(line.split())
        return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 1] + "…"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def body(self) -> list[Directive]:
        return self.block or []


def _quoted(word: str) -> str:
    if not _NEEDS_QUOTES.search(word):
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'


@dataclass
class Source:
    """A configuration: the directives at its top, and all in the order of the files."""

    top: list[Directive]
    all: list[Directive]


def read(path: Path) -> Source:
    """Read a configuration file and what it includes; raises SourceError."""
    crossplane = _crossplane()
    try:
        path.open("rb").close()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    payload = _parse(crossplane, path, is_part=False)
    if _is_part(payload):
        payload = _parse(crossplane, path, is_part=True)
    problems = [text for error in payload["errors"] if (text := _problem(error, path))]
    if problems:
        raise SourceError("\n".join(problems))
    reader = _Reader(payload["config"], path.parent)
    top = reader.block(payload["config"][0]["parsed"], str(path), ())
    if not any(d.name in _OF_HTTP or d.name in ("http", "stream", "mail") for d in top):
        raise SourceError(
            f"{path}: is not a configuration of nginx: it has neither http {{ }} nor server {{ }}"
        )
    return Source(top, reader.all)


def _crossplane() -> Any:
    try:
        import crossplane
    except ImportError:
        raise SourceError(
            "reading nginx's configuration requires crossplane: pip install 'quicedge[migrate]'"
        ) from None
    return crossplane


def _parse(crossplane: Any, path: Path, *, is_part: bool) -> Any:
    try:
        return crossplane.parse(str(path), check_ctx=not is_part)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not a configuration of nginx: {error}") from None
    except RecursionError:
        raise SourceError(f"{path}: blocks are nested too deeply") from None


def _is_part(payload: Any) -> bool:
    """Whether a file is what stands in `http { }`, as those in sites-available are."""
    parsed = payload["config"][0]["parsed"] if payload["config"] else []
    refused = {
        error["error"].partition('"')[2].partition('"')[0]
        for error in payload["config"][0]["errors"]
        if "is not allowed here" in error["error"]
    }
    return bool(refused & _OF_HTTP) and not any(item["directive"] == "http" for item in parsed)


def _problem(error: Any, path: Path) -> str | None:
    """One error of crossplane's in words; None: it does not matter."""
    text = str(error["error"]) or "is not a configuration of nginx"
    found = re.match(r"\[Errno \d+\] (.*): '(.*)'(?: in .*)?", text)
    if found and os.path.basename(found[2]) in SHIPPED:
        return None
    text = f"{found[2]}: {found[1]}" if found else re.sub(r" in \S+:\d+$", "", text)
    line = f":{error['line']}" if error.get("line") else ""
    return f"{error.get('file') or path}{line}: {text}"


class _Reader:
    """Makes one tree of the files that crossplane has parsed."""

    def __init__(self, files: list[Any], directory: Path) -> None:
        self._files = files
        self._directory = directory
        self.all: list[Directive] = []

    def block(self, parsed: list[Any], file: str, including: tuple[int, ...]) -> list[Directive]:
        """The directives of a block, those of included files in place of their `include` too."""
        return [found for item in parsed for found in self._directives(item, file, including)]

    def _directives(self, item: Any, file: str, including: tuple[int, ...]) -> Iterator[Directive]:
        directive = Directive(item["directive"], item["args"], file, item["line"])
        self.all.append(directive)
        yield directive
        if "block" in item:
            directive.block = self.block(item["block"], file, including)
        if directive.name != "include":
            return
        numbers = item.get("includes", [])
        if not numbers and not re.search(r"[*?\[]", "".join(directive.args)):
            directive.is_missing = True
        for number in numbers:
            if number in including:
                raise SourceError(f"{directive.place}: {directive.text} includes itself")
            found = self._files[number]
            inside = self.block(found["parsed"], found["file"], (*including, number))
            directive.included += inside
            yield from inside
