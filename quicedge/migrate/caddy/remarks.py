"""What became of each line of a Caddyfile, written down while its JSON is translated."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from quicedge.migrate.caddy.caddyfile import Written
from quicedge.migrate.caddy.handlers import Remark
from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Line, Status

LEFT_OUT = (Effect(Side.CLIENT, Aspect.STATUS), Effect(Side.ORIGIN, Aspect.REACHED))
"""Where a handler is missed: others answer."""

DIRECTIVES = {
    "reverse_proxy": ("reverse_proxy", "forward_auth", "php_fastcgi"),
    "file_server": ("file_server",),
    "static_response": ("redir", "respond", "abort"),
    "rewrite": ("rewrite", "uri", "handle_path", "try_files", "method"),
    "headers": ("header", "request_header"),
    "encode": ("encode",),
    "authentication": ("basic_auth", "basicauth"),
    "request_body": ("request_body",),
    "vars": ("root", "vars"),
    "error": ("error",),
    "log_append": ("log_append",),
    "map": ("map",),
    "templates": ("templates",),
    "push": ("push",),
    "tracing": ("tracing",),
    "intercept": ("intercept",),
    "acme_server": ("acme_server",),
    "metrics": ("metrics",),
    "invoke": ("invoke",),
    "copy_response": ("copy_response",),
}
"""The directives that a handler of Caddy's JSON can come from."""

_AROUND = frozenset(("handle", "handle_path", "route", "import"))
"""Directives that only hold others together."""

_NOTHING = "nothing comes of it: a directive before it answers, or quicedge has nothing like it"

_OPTIONS = {
    "email": "tls.acme.email",
    "debug": 'see log.level = "debug"',
    "http_port": "see redirect_http",
    "https_port": "see listen",
    "admin": "quicedge has an admin API of its own ([admin])",
    "order": "Caddy has ordered the directives already",
}


class Remarks:
    """Remarks on the lines of a file."""

    def __init__(self, file: str, top: list[Written]) -> None:
        self._file = file
        self._top = top
        self._marks: dict[Written, dict[tuple[Status, str], None]] = defaultdict(dict)
        self._effects: dict[Written, dict[Effect, None]] = defaultdict(dict)
        self._found: dict[int, Written | None] = {}
        """What was found for a handler, by its identity."""
        self._taken: set[Written] = set()
        self._said: dict[Written, list[str]] = {}
        """The words of lines that were asked for."""
        self._matchers: dict[int, Any] = {}
        """The matchers that a handler stands behind, by its identity."""
        self._elsewhere: dict[Line, None] = {}
        """Remarks on what is in no line of the file."""
        self._snippets = {one.name.strip("()"): one for one in top if one.name.startswith("(")}

    def site(self, hosts: Iterable[str]) -> Written | None:
        """The block of the site with a host."""
        wanted = set(hosts)
        for one in self._top:
            names = {_host(word.rstrip(",")) for word in (one.name, *one.args)}
            if one.has_block and wanted & names:
                return one
        return None

    def found_with(self, chain: Iterable[Mapping[str, Any]], matchers: Any) -> None:
        """Tell of the matchers of handlers: their words are in the same line."""
        for handler in chain:
            self._matchers[id(handler)] = matchers

    def translated(self, site: Written | None, handler: Mapping[str, Any]) -> None:
        self._mark(site, handler, Status.TRANSLATED, "")

    def different(
        self, site: Written | None, handler: Mapping[str, Any], words: str, *effects: Effect
    ) -> None:
        self._mark(site, handler, Status.DIFFERENT, words, effects)

    def left_out(self, site: Written | None, handler: Mapping[str, Any], words: str) -> None:
        self._mark(site, handler, Status.LEFT_OUT, words, LEFT_OUT)

    def inner(self, site: Written | None, handler: Mapping[str, Any], remark: Remark) -> None:
        """Lines in the block of a directive are left out."""
        written = self._of(site, handler)
        found = False
        for line in written.block if written is not None else ():
            if line.name == remark.name and remark.about in ("", *line.args[:1]):
                self.mark(line, Status.LEFT_OUT, remark.words, *remark.effects)
                found = True
        if not found:
            name = f"{remark.name} {remark.about}".strip()
            self.different(site, handler, f"without {name}: {remark.words}", *remark.effects)

    def mark(self, written: Written, status: Status, words: str, *effects: Effect) -> None:
        """A line itself."""
        self._marks[written][status, words] = None
        self._effects[written].update(dict.fromkeys(effects))

    def option(self, name: str, status: Status, words: str, *effects: Effect) -> None:
        """A global option, or a directive by its name, wherever it stands."""
        for one in self._top:
            for line in one.walk():
                if line.name == name:
                    self.mark(line, status, words, *effects)

    def _mark(
        self, site: Written | None, handler: Mapping[str, Any], status: Status, words: str,
        effects: tuple[Effect, ...] = (),
    ) -> None:  # fmt: skip
        written = self._of(site, handler)
        if written is not None:
            self.mark(written, status, words, *effects)
            return
        host = site.name if site is not None else ""
        text = f"{host} {handler.get('handler', '')}".strip()
        self._elsewhere[Line(self._file, 0, text, status, words, effects)] = None

    def _of(self, site: Written | None, handler: Mapping[str, Any]) -> Written | None:
        """The line that a handler comes from: of those with the right directive the one with most
        of its words."""
        key = id(handler)
        if key in self._found:
            return self._found[key]
        names = DIRECTIVES.get(str(handler.get("handler")), ())
        values = {_plain(text) for text in _values([handler, self._matchers.get(key, [])])}
        joined = "\0".join(values)
        best: Written | None = None
        score = -1
        for line in self._lines_of(site):
            if line.name not in names or (line in self._taken and line.name != "header"):
                continue
            shared = sum(
                word in values or (len(word) > 3 and word in joined) for word in self._words(line)
            )
            if shared > score:
                best, score = line, shared
        self._found[key] = best
        if best is not None:
            self._taken.add(best)
        return best

    def _words(self, line: Written) -> list[str]:
        """The words of a line and of what is in it, as they would be in JSON."""
        if line not in self._said:
            self._said[line] = [_plain(word.lower().lstrip("+->?")) for word in line.words()]
        return self._said[line]

    def _lines_of(self, site: Written | None) -> Iterator[Written]:
        for line in site.walk() if site is not None else ():
            yield line
            if line.name == "import" and line.args and line.args[0] in self._snippets:
                yield from self._lines_of(self._snippets[line.args[0]])
        if site is None:
            for one in self._top:
                yield from one.walk()

    def lines(self) -> list[Line]:
        """One line per line of the file that says something, and what is in none."""
        found: list[Line] = []
        for one in self._top:
            if one.name == "":
                found += (self._option(option) for option in one.block)
                continue
            found += self._of_tree(one, None, is_top=True)
        return [*found, *self._elsewhere]

    def _option(self, one: Written) -> Line:
        marks = self._marks.get(one)
        if marks:
            return self._line(one, marks)
        words = _OPTIONS.get(one.name, "an option of Caddy's own")
        return Line(self._file, one.line, one.text, Status.LEFT_OUT, words)

    def _of_tree(
        self, one: Written, above: dict[tuple[Status, str], None] | None, *, is_top: bool = False
    ) -> Iterator[Line]:
        marks = self._marks.get(one)
        if marks is None:
            marks = self._presumed(one, above, is_top=is_top)
        yield self._line(one, marks)
        is_around = is_top or one.name in _AROUND
        for inner in one.block:
            yield from self._of_tree(inner, None if is_around else marks)

    def _presumed(
        self, one: Written, above: dict[tuple[Status, str], None] | None, *, is_top: bool
    ) -> dict[tuple[Status, str], None]:
        """What became of a line that nothing was remarked on: part of the line above, or of what
        it holds together, or nothing."""
        if above is not None:
            statuses = {status for status, _ in above}
            if Status.LEFT_OUT in statuses:
                return {(Status.LEFT_OUT, "belongs to the directive above"): None}
            return {(Status.TRANSLATED, ""): None}
        if is_top or one.name in _AROUND or one.name.startswith("@"):
            return {(Status.TRANSLATED, ""): None}
        return {(Status.LEFT_OUT, _NOTHING): None}

    def _line(self, one: Written, marks: dict[tuple[Status, str], None]) -> Line:
        statuses = {status for status, _ in marks}
        status = next(iter(statuses)) if len(statuses) == 1 else Status.DIFFERENT
        words = "; ".join(dict.fromkeys(words for _, words in marks if words))
        effects = tuple(self._effects.get(one, ()))
        return Line(self._file, one.line, one.text, status, words, effects)


def _host(address: str) -> str:
    """The host in the address of a site, or its port if it has no host."""
    rest = address.partition("://")[2] or address
    rest = rest.partition("/")[0]
    host, colon, port = rest.rpartition(":")
    return (host if colon and port.isdigit() else rest).lower() or f":{port}"


def _values(value: Any) -> Iterator[str]:
    """All strings in a piece of JSON, its keys too."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key).lower()
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    else:
        yield str(value).lower()


def _plain(text: str) -> str:
    """A text without placeholders, which Caddy's JSON has under longer names."""
    return re.sub(r"\{[^{}]*\}", "", text)
