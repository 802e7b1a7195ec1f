"""Line numbers of keys in a TOML file, which `tomllib` does not report.

The text has already been parsed by `tomllib`, so the scanner only skips strings, comments and
brackets and does not validate.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""\s*("(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[str, int]:
    """Line numbers, from 1, by key path: `listen`, `listen[0]`, `routes[1].path`."""
    try:
        return _Walk(text).lines
    except (AttributeError, IndexError, ValueError):
        return {}  # problems without positions beat no report at all


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._at = 0
        self._arrays: dict[str, int] = {}
        table = ""
        while self._skip():
            start = self._at
            if text.startswith("[[", start):
                self._at += 2
                table = self._resolve(self._key())
                self._arrays[table] = self._arrays.get(table, -1) + 1
                table = f"{table}[{self._arrays[table]}]"
                self._note(table, start)
                self._at += 2
            elif text[start] == "[":
                self._at += 1
                table = self._resolve(self._key())
                self._at += 1
            else:
                self._pair(table)

    def _note(self, path: str, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self._newlines, at) + 1)

    def _skip(self) -> bool:
        """Skip whitespace and comments; whether anything is left."""
        self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._at < len(self._text)

    def _key(self) -> list[str]:
        """The parts of a dotted key."""
        parts = []
        while True:
            match = _KEY_PART.match(self._text, self._at)
            if match is None:
                raise ValueError(f"expected a key at offset {self._at}")
            part = match[1]
            is_escaped = part[0] == '"'
            parts.append(tomllib.loads(f"key = {part}")["key"] if is_escaped else part.strip("'"))
            self._at = match.end()
            if self._text[self._at : self._at + 1] != ".":
                return parts
            self._at += 1

    def _resolve(self, parts: list[str]) -> str:
        """The path of a table header; an array of tables stands for its last element."""
        path, start = "", self._at
        for index, part in enumerate(parts):
            path = f"{path}.{part}" if path else part
            self._note(path, start)
            if index < len(parts) - 1 and path in self._arrays:
                path = f"{path}[{self._arrays[path]}]"
        return path

    def _pair(self, table: str) -> None:
        """`key = value`, on a line of its own or in an inline table."""
        start, path = self._at, table
        for part in self._key():
            path = f"{path}.{part}" if path else part
            self._note(path, start)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: str) -> None:
        self._skip()
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            index = 0
            while self._skip() and self._text[self._at] != "]":
                self._note(f"{path}[{index}]", self._at)
                self._value(f"{path}[{index}]")
                index += 1
                self._pass_comma()
            self._at += 1
        elif opening == "{":
            self._at += 1
            while self._skip() and self._text[self._at] != "}":
                self._pair(path)
                self._pass_comma()
            self._at += 1
        else:
            pattern = _STRING if opening in "\"'" else _SCALAR
            self._at = pattern.match(self._text, self._at).end()  # type: ignore[union-attr]

    def _pass_comma(self) -> None:
        self._skip()
        if self._text[self._at] == ",":
            self._at += 1
