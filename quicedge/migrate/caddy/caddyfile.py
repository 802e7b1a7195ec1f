"""The lines of a Caddyfile: which directive stands where.

Caddy's JSON keeps no lines; this finds them again. It reads no meaning: that is Caddy's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|\S+')
_HEREDOC = re.compile(r"<<([A-Za-z0-9_-]+)$")
_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(eq=False)
class Written:
    """A directive, a matcher, a site or an option as it is written."""

    name: str
    args: list[str]
    line: int
    block: list[Written] = field(default_factory=list)
    has_block: bool = False

    @property
    def text(self) -> str:
        return " ".join([self.name, *self.args]) + (" { }" if self.has_block else "")

    def words(self) -> Iterator[str]:
        """All words in it and below it."""
        yield self.name
        yield from self.args
        for inner in self.block:
            yield from inner.words()

    def walk(self) -> Iterator[Written]:
        yield self
        for inner in self.block:
            yield from inner.walk()


def read_lines(path: Path) -> list[Written]:
    """What is written at the top of a file, with what is in it."""
    return _Reader(path.read_text().splitlines()).file()


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._number = 0

    def file(self) -> list[Written]:
        """A file of several sites, or of one without braces around it."""
        found = self._block()
        sites = [one for one in found if one.has_block]
        if len(sites) == len(found) or not found or _is_import(found[0]):
            return found
        first = found[0]
        if not first.has_block:
            # The first line has the addresses of the only site.
            return [Written(first.name, first.args, first.line, found[1:], has_block=True)]
        return found

    def _block(self) -> list[Written]:
        found: list[Written] = []
        while self._number < len(self._lines):
            line = self._number + 1
            tokens = self._tokens()
            if not tokens:
                continue
            if tokens == ["}"]:
                return found
            opens = tokens[-1] == "{"
            words = tokens[:-1] if opens else tokens
            # Addresses of a site may stand on several lines, each but the last ending in a comma.
            while words and words[-1].endswith(",") and not opens:
                more = self._tokens()
                opens = bool(more) and more[-1] == "{"
                words += more[:-1] if opens else more
            name = words[0] if words else ""
            one = Written(name, words[1:], line, has_block=opens)
            found.append(one)
            if opens:
                one.block = self._block()
        return found

    def _tokens(self) -> list[str]:
        """The words of the next line, with the lines of a heredoc or of quotes that go on."""
        line = _COMMENT.sub("", self._lines[self._number])
        self._number += 1
        heredoc = _HEREDOC.search(line)
        if heredoc is not None:
            while self._number < len(self._lines):
                self._number += 1
                if self._lines[self._number - 1].split()[:1] == [heredoc[1]]:
                    break
        while line.count("`") % 2 and self._number < len(self._lines):
            line += "\n" + self._lines[self._number]
            self._number += 1
        while line.endswith("\\") and self._number < len(self._lines):
            line = line[:-1] + " " + self._lines[self._number]
            self._number += 1
        return [token.strip('"`') if len(token) > 1 else token for token in _TOKEN.findall(line)]


def _is_import(one: Written) -> bool:
    return one.name == "import"
