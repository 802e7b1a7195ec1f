"""`proxy_cookie_domain`, `proxy_cookie_path` and `proxy_cookie_flags`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from quicedge.config.filter_validation import cookie_flags_problem, cookie_problem
from quicedge.config.filters import CookieFlag
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.matching import marked_pattern, pattern_rule
from quicedge.migrate.nginx.notebook import Notebook
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import Names, UnsayableError, template, variables

_EFFECTS = visible.client("set-cookie")
_ANY = re.compile(r"~\*?\^?\(\.[*+]\)\$?")
"""A pattern that all paths match, with all of them as its group."""


def cookies(scope: Scope, names: Names, note: Notebook) -> Iterator[Filter]:
    """The filter for what nginx does to the cookies of an origin."""
    found = _Cookies(names, note)
    found.take(scope, "proxy_cookie_domain", found.domain)
    found.take(scope, "proxy_cookie_flags", found.flags)
    found.take(scope, "proxy_cookie_path", found.path)
    yield from found.filters()


class _Cookies:
    """The rules as they are read."""

    def __init__(self, names: Names, note: Notebook) -> None:
        self._names = names
        self._note = note
        self._domains: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._flags: dict[str, list[str]] = {}

    def filters(self) -> Iterator[Filter]:
        # Where nothing is configured nginx changes nothing, as these tables say.
        settings: dict[str, Any] = {"domain": self._domains, "path": self._paths}
        if self._flags:
            settings["flags"] = self._flags
        if any(settings.values()):
            yield {"rewrite_cookies": settings}

    def take(self, scope: Scope, name: str, read: Callable[[Directive], str]) -> None:
        """Read all directives of a name; `read` returns the difference that there is."""
        for directive in scope.all(name):
            if directive.args == ["off"]:
                self._note.translated(directive)
                return
            try:
                words = read(directive)
            except UnsayableError as error:
                self._note.left_out(directive, str(error), *_EFFECTS)
                continue
            if words:
                self._note.different(directive, words, *_EFFECTS)
            else:
                self._note.translated(directive)

    def domain(self, directive: Directive) -> str:
        old, new = directive.args
        if old.startswith("~"):
            # nginx compares domains without regard to case.
            old, new = pattern_rule(f"~*{old.lstrip('~*')}", new, self._names)
        else:
            old, new = template(old, self._names).removeprefix("."), template(new, self._names)
        self._add(self._domains, "domain", old, new)
        return ""

    def path(self, directive: Directive) -> str:
        old, written = directive.args
        new, *attributes = (part.strip() for part in written.split(";"))
        words = ""
        if flags := [_flag(attribute) for attribute in attributes if attribute]:
            words = "flags are set of all cookies, and paths stay as they are"
            if not (old == "/" or _ANY.fullmatch(old)):
                raise UnsayableError("flags depend on the path of cookies")
            self._add_flags(flags)
        if new == old or (_ANY.fullmatch(old) and new == "$1"):
            return words
        if old.startswith("~"):
            old, new = pattern_rule(old, new, self._names)
        else:
            old, new = template(old, self._names), template(new, self._names)
            if not (old.endswith("/") and new.endswith("/")):
                words = words or "paths are replaced by whole segments"
        self._add(self._paths, "path", old, new)
        return words

    def _add_flags(self, added: list[str]) -> None:
        """Have all cookies get some flags, whatever else they get."""
        attributes = {CookieFlag(flag).attribute for flag in added}
        self._flags.setdefault("*", [])
        for name, flags in self._flags.items():
            rest = [flag for flag in flags if CookieFlag(flag).attribute not in attributes]
            self._flags[name] = [*added, *rest]

    def flags(self, directive: Directive) -> str:
        name, *flags = directive.args
        if any(variables(name)):
            raise UnsayableError(f"the name of the cookie depends on the request: {name}")
        if name.startswith("~"):
            pattern = marked_pattern(name)
            name = f"~{pattern}" if pattern not in ("", "(?i)") else "*"
        found = [_flag(flag) for flag in flags]
        if problem := cookie_flags_problem(name, [CookieFlag(flag) for flag in found]):
            raise UnsayableError(problem)
        if "*" not in self._flags:
            self._flags.setdefault(name, found)
        return ""

    def _add(self, table: dict[str, str], key: str, old: str, new: str) -> None:
        if problem := cookie_problem(key, old, new):
            raise UnsayableError(problem)
        table.setdefault(old, new)


def _flag(text: str) -> str:
    """A flag as it is written in `quicedge.toml`; raises UnsayableError."""
    found = text.lower().replace(" ", "")
    try:
        return CookieFlag(found).value
    except ValueError:
        raise UnsayableError(f"a cookie has no flag {text}") from None
