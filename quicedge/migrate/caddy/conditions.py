"""Matchers of Caddy as conditions of routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx.matching import covers, decided


class UnsayableError(ValueError):
    """Something of Caddy's that a configuration of quicedge cannot say; the message is why."""


@dataclass(frozen=True)
class Conditions:
    """What requests of a route meet."""

    path: str = "/"
    """A prefix: of whole segments, or up to a slash."""
    exact: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of a route."""

    def and_also(self, other: Conditions) -> Conditions | None:
        """What meets both; None: nothing does. Raises UnsayableError."""
        exact = self.exact if self.exact is not None else other.exact
        if exact is not None:
            if other.exact not in (None, exact) or self.exact not in (None, exact):
                return None
            if not (self._has(exact) and other._has(exact)):
                return None
            further = _joined(self.further, other.further)
            rest = None if further is None else decided(further, exact)
            return None if rest is None else Conditions(exact=exact, further=rest)
        if covers(other.path, self.path):
            path = self.path
        elif covers(self.path, other.path):
            path = other.path
        else:
            return None
        further = _joined(self.further, other.further)
        return None if further is None else Conditions(path, further=further)

    @property
    def is_about_end(self) -> bool:
        """Whether more than a prefix of the path counts."""
        is_further = "path_regex" in self.further or "extensions" in self.further
        return self.exact is not None or is_further

    @property
    def is_about_path(self) -> bool:
        return self.is_about_end or self.path != "/"

    def _has(self, exact: str) -> bool:
        return self.exact == exact or (self.exact is None and covers(self.path, exact))

    def is_within(self, other: Conditions) -> bool:
        """Whether everything that meets these certainly meets the other ones."""
        if any(self.further.get(key) != value for key, value in other.further.items()):
            return False
        if other.exact is not None:
            return self.exact == other.exact
        return covers(other.path, self.exact if self.exact is not None else self.path)

    def under(self, prefix: str) -> Conditions:
        """The conditions on the path before a prefix was stripped from it."""
        if not prefix:
            return self
        if "path_regex" in self.further:
            raise UnsayableError("a regular expression is for the path behind a stripped prefix")
        if self.exact is not None:
            return replace(self, exact=prefix + self.exact)
        return replace(self, path=prefix + self.path if self.path != "/" else "/")

    def keys(self) -> dict[str, Any]:
        """The keys of a route."""
        if self.exact is not None:
            return {"path_exact": self.exact, **self.further}
        return {**({"path": self.path} if self.path != "/" else {}), **self.further}


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    both = dict(one)
    for key, value in other.items():
        if key not in both or both[key] == value:
            both[key] = value
        elif key in ("methods", "extensions", "protocols", "host"):
            both[key] = [item for item in both[key] if item in value]
            if not both[key]:
                return None
        elif key in ("headers", "query") and not set(both[key]) & set(value):
            both[key] = {**both[key], **value}
        else:
            raise UnsayableError(f"a route has one {key}, and this needs two")
    return both


@dataclass(frozen=True)
class Alternatives:
    """What a list of matchers asks for: one of these, or none of them."""

    one_of: tuple[Conditions, ...]
    is_negated: bool = False
    words: str = ""
    """In what the translation differs."""


ALWAYS = Alternatives((Conditions(),))


def alternatives_of(matchers: Sequence[Mapping[str, Any]]) -> Alternatives:
    """The matchers of a route; raises UnsayableError."""
    if not matchers:
        return ALWAYS
    if len(matchers) == 1 and set(matchers[0]) == {"not"}:
        inner = alternatives_of(matchers[0]["not"])
        if inner.is_negated:
            return replace(inner, is_negated=False)
        return replace(inner, is_negated=True)
    found: list[Conditions] = []
    words: dict[str, None] = {}
    for matcher in matchers:
        for conditions, said in _of_set(matcher):
            found.append(conditions)
            words.update(dict.fromkeys(said))
    return Alternatives(tuple(found), words="; ".join(words))


def _of_set(matcher: Mapping[str, Any]) -> Iterator[tuple[Conditions, list[str]]]:
    """One set of matchers, all of which must be met: a product, as one with several paths is."""
    further: dict[str, Any] = {}
    words: list[str] = []
    for kind, value in matcher.items():
        if kind == "method":
            further["methods"] = list(value)
        elif kind == "header":
            further["headers"] = dict(_headers(value))
        elif kind == "query":
            further["query"] = dict(_query(value))
        elif kind in ("remote_ip", "client_ip"):
            further["clients"] = list(value["ranges"])
        elif kind == "path_regexp":
            further["path_regex"] = _pattern(value["pattern"])
        elif kind == "protocol":
            further.update(_protocol(value))
        elif kind == "host":
            further["host"] = [host.lower() for host in value]
        elif kind != "path":
            raise UnsayableError(f"there is no condition like the matcher {kind}")
    for path in matcher.get("path", ["*"]):
        conditions, said = _path(path)
        joined = conditions.and_also(Conditions(further=further))
        if joined is not None:
            yield joined, words + said


def _path(text: str) -> tuple[Conditions, list[str]]:
    """A path of Caddy's, where `*` at an end stands for anything."""
    if text in ("*", "/*"):
        return Conditions(), []
    if text.startswith("*.") and re.fullmatch(r"[a-z0-9_.-]+", text[2:]):
        return Conditions(further={"extensions": [text[2:]]}), []
    if "*" not in text:
        return Conditions(exact=text), []
    start, _, rest = text.partition("*")
    if not rest and start.endswith("/"):
        return Conditions(path=start), []
    if not rest and start.startswith("/"):
        said = f"{text} is a prefix of whole segments here: {start}x does not match"
        return Conditions(path=start), [said]
    pattern = "^" + re.escape(text).replace(r"\*", "[^/]*" if not text.startswith("*") else ".*")
    return Conditions(further={"path_regex": _pattern(pattern + "$")}), []


def _headers(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = {name.lower() for name in fields}
    for name, values in fields.items():
        lowered = name.lower()
        if lowered == "upgrade" and values == ["websocket"]:
            # Every WebSocket has it, whatever protocol it was asked for with.
            yield "sec-websocket-version", "*"
        elif lowered == "connection" and "upgrade" in names:
            continue
        elif values is None or values == []:
            yield lowered, "!"
        elif len(values) == 1:
            yield lowered, _wildcard(values[0])
        else:
            yield lowered, "~^(?:" + "|".join(_as_pattern(value) for value in values) + ")$"


def _wildcard(value: str) -> str:
    if value == "*":
        return "*"
    return f"~^{_as_pattern(value)}$" if "*" in value else _plain(value)


def _as_pattern(value: str) -> str:
    return re.escape(value).replace(r"\*", ".*")


def _plain(value: str) -> str:
    if "{" in value:
        raise UnsayableError(f"the value {value} has a placeholder, which conditions have not")
    return f"~^{re.escape(value)}$" if value[:1] in ("~", "*", "!") else value


def _query(parameters: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    for name, values in parameters.items():
        if len(values) != 1:
            alternatives = "|".join(re.escape(value) for value in values)
            yield name, f"~^(?:{alternatives})$"
        else:
            yield name, "*" if values[0] == "*" else _plain(values[0])


def _protocol(value: str) -> dict[str, Any]:
    if value == "https":
        return {}
    if value == "http/3":
        return {"protocols": ["h3"]}
    if value == "http/2":
        return {"protocols": ["h2"]}
    raise UnsayableError(f"there is no condition like protocol {value}: all requests are https")


def _pattern(text: str) -> str:
    """A regular expression of Go's, which are RE2's too."""
    try:
        compile_pattern(text)
    except ValueError as error:
        raise UnsayableError(f"the regular expression {error}") from None
    return text
