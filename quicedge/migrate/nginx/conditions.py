"""What nginx decides by: the conditions of `if`, and the variables of `map` and `geo`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx.matching import (
    ALWAYS,
    Match,
    extensions_of,
    match_values,
    pattern_of,
)
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.variables import (
    DIVIDED,
    PART,
    Names,
    UnsayableError,
    constant,
    literal,
    single,
    template,
)

_MOST_CASES = 20_000
"""Entries of a map that become routes."""


@dataclass(frozen=True)
class Case:
    """One of several ways in which something can turn out, the first that is met counts."""

    match: Match
    truth: bool = True
    values: Mapping[str, str] = field(default_factory=dict)
    """Of variables, as templates."""
    entries: tuple[Directive, ...] = ()
    """Where it is from, in a table."""


@dataclass
class Table:
    """A `map`, `geo` or `split_clients`: a variable whose value depends on another."""

    directive: Directive
    source: str
    """The text that decides."""
    variable: str

    @property
    def is_geo(self) -> bool:
        return self.directive.name == "geo"

    @property
    def entries(self) -> list[Directive]:
        """Those with a value, in the order in which they count."""
        settings = {"hostnames", "volatile", "include", "default", "ranges", "delete", "proxy",
                    "proxy_recursive"}  # fmt: skip
        found = [entry for entry in self.directive.body if entry.name not in settings]
        if self.is_geo:
            return sorted(found, key=lambda entry: -_prefix_length(entry.name))
        # Whole values count before regular expressions.
        return sorted(found, key=lambda entry: entry.name.startswith("~"))

    @property
    def default(self) -> Directive | None:
        return next((entry for entry in self.directive.body if entry.name == "default"), None)

    @property
    def default_value(self) -> str:
        return self.default.args[0] if self.default is not None and self.default.args else ""

    def otherwise(self, value: str) -> Case:
        """What holds where no entry does."""
        entries = () if self.default is None else (self.default,)
        return Case(ALWAYS, True, {self.variable: value}, entries)

    @property
    def is_of_response(self) -> bool:
        """Whether the response decides, which is not known when a route is chosen."""
        return self.source.startswith(("$sent_http_", "$upstream_http_", "$status"))

    @property
    def is_upgrade(self) -> bool:
        """The usual map that says whether a WebSocket is asked for."""
        return self.source == "$http_upgrade"


def _prefix_length(text: str) -> int:
    try:
        return ipaddress.ip_network(text, strict=False).prefixlen
    except ValueError:
        return -1


@dataclass(frozen=True)
class Asked:
    """For which requests something is decided."""

    host: str
    """A name, `*.` and a name, or `*`."""
    names: Names
    tables: Mapping[str, Table]

    @property
    def is_one_host(self) -> bool:
        return "*" not in self.host


def decide(args: Sequence[str], asked: Asked) -> list[Case]:
    """The cases of the condition of an `if`; raises UnsayableError."""
    words = [word for word in args if word not in ("(", ")")]
    if len(words) == 1:
        return _truth(words[0], asked)
    if len(words) == 2 and re.fullmatch(r"!?-[fdex]", words[0]):
        raise UnsayableError("whether files exist is no condition of a route")
    if len(words) != 3 or single(words[0]) is None:
        raise UnsayableError(f"the condition {' '.join(args)} is not understood")
    variable, operator, operand = single(words[0]) or "", words[1], words[2]
    negated = operator.startswith("!")
    kind = operator.removeprefix("!")
    if kind not in ("=", "~", "~*"):
        raise UnsayableError(f"the operator {operator} is not understood")
    found = _compare(variable, kind, operand, asked)
    if not negated:
        return found
    return [Case(c.match, not c.truth, c.values, c.entries) for c in found]


def _truth(text: str, asked: Asked) -> list[Case]:
    """`if ($variable)`: neither empty nor 0."""
    variable = single(text)
    if variable is None:
        raise UnsayableError(f"the condition {text} is not understood")
    if (table := asked.tables.get(variable)) is not None and variable not in asked.names.values:
        return [
            Case(c.match, c.values[variable] not in ("", "0"), c.values, c.entries)
            for c in cases_of(table, asked)
        ]
    known = _known(variable, asked)
    if known is not None:
        return [Case(ALWAYS, known not in ("", "0"))]
    match = compare_variable(variable, "=", "", asked)
    if isinstance(match, bool):
        return [Case(ALWAYS, not match)]
    return [Case(match, False), Case(ALWAYS, True)]


def _compare(variable: str, kind: str, operand: str, asked: Asked) -> list[Case]:
    if (table := asked.tables.get(variable)) is not None and variable not in asked.names.values:
        found = []
        for case in cases_of(table, asked):
            value = case.values[variable]
            if re.search(r"(?<!\{)\{[^{]", value):
                raise UnsayableError(f"values of ${variable} depend on the request")
            found.append(Case(case.match, _holds(kind, value, operand), case.values, case.entries))
        return found
    match = compare_variable(variable, kind, operand, asked)
    values = _groups(variable, kind, operand, ALWAYS if isinstance(match, bool) else match, asked)
    if isinstance(match, bool):
        return [Case(ALWAYS, match, values)]
    return [Case(match, True, values), Case(ALWAYS, False)]


def _groups(
    variable: str, kind: str, operand: str, match: Match, asked: Asked
) -> Mapping[str, str]:
    """What the groups of a regular expression hold after it has matched, as templates."""
    if kind == "=":
        return {}
    if (pattern := match.get("path_regex")) is not None:
        return match_values(pattern)
    known = _known(variable, asked)
    if known is None:
        return {}
    compiled = compile_pattern(pattern_of(operand, ignore_case=kind == "~*"))
    found = compiled.search(known.encode())
    if found is None:
        return {}
    groups: list[tuple[str, int]] = [(str(number), number) for number in range(compiled.groups + 1)]
    groups += [(name.decode(), number) for name, number in compiled.groupindex.items()]
    return {name: literal((found.group(number) or b"").decode()) for name, number in groups}


def _holds(kind: str, value: str, operand: str) -> bool:
    if kind == "=":
        return value == operand
    pattern = compile_pattern(pattern_of(operand, ignore_case=kind == "~*"))
    return pattern.search(value.encode()) is not None


def cases_of(table: Table, asked: Asked) -> list[Case]:
    """What a variable of a map is, in cases; raises UnsayableError."""
    if table.directive.name == "split_clients":
        raise UnsayableError("shares of clients are only translated where they choose an upstream")
    if table.is_geo:
        return _geo_cases(table, asked)
    source = single(table.source)
    if source is None:
        raise UnsayableError(f"a map of {table.source}, which is not one variable")
    entries = table.entries
    if len(entries) > _MOST_CASES:
        raise UnsayableError(f"a map with more than {_MOST_CASES} entries")
    has_hostnames = any(entry.name == "hostnames" for entry in table.directive.body)
    found: list[Case] = []
    for entry in entries:
        kind, operand = _operand(entry.name)
        if has_hostnames and _is_host_pattern(operand):
            kind, operand = "~*", _host_pattern(operand)
        elif kind == "=" and source.startswith(("http_", "cookie_", "arg_")) and operand:
            # Maps compare without regard to case.
            kind, operand = "~*", f"^{re.escape(operand)}$"
        match = compare_variable(source, kind, operand, asked)
        if match is False:
            continue
        case = ALWAYS if match is True else match
        assert not isinstance(case, bool)
        names = asked.names.with_values(_groups(source, kind, operand, case, asked))
        value = _value_of(entry.args[0] if entry.args else "", names, asked)
        found.append(Case(case, True, {table.variable: value}, (entry,)))
        if not case:
            return found
    value = _value_of(table.default_value, asked.names, asked)
    return [*found, table.otherwise(value)]


def _value_of(text: str, names: Names, asked: Asked) -> str:
    """The value of an entry: a template, or the name of a variable that divides clients."""
    other = asked.tables.get(single(text) or "")
    if other is not None and other.directive.name == "split_clients":
        return f"{DIVIDED}{other.variable}"
    return template(text, names)


def _operand(name: str) -> tuple[str, str]:
    if name.startswith("~*"):
        return "~*", name[2:]
    if name.startswith("~"):
        return "~", name[1:]
    return "=", name.removeprefix("\\")


def _is_host_pattern(text: str) -> bool:
    return text.startswith(("*.", ".")) or text.endswith(".*")


def _host_pattern(text: str) -> str:
    if text.endswith(".*"):
        return f"^{re.escape(text[:-1])}"
    start = "(?:.*\\.)?" if text.startswith(".") else ".*\\."
    return f"^{start}{re.escape(text.lstrip('*').lstrip('.'))}$"


def _geo_cases(table: Table, asked: Asked) -> list[Case]:
    if table.source not in ("", "$remote_addr", "$binary_remote_addr"):
        raise UnsayableError(f"a geo of {table.source}, which is not the client's address")
    by_value: list[tuple[str, list[Directive]]] = []
    for entry in table.entries:
        if _prefix_length(entry.name) < 0:
            raise UnsayableError(f"{entry.name} is neither an address nor a network")
        value = entry.args[0] if entry.args else ""
        if by_value and by_value[-1][0] == value:
            by_value[-1][1].append(entry)
        else:
            by_value.append((value, [entry]))
    found = [
        Case(
            {"clients": [entry.name for entry in entries]}, True,
            {table.variable: template(value, asked.names)}, tuple(entries),
        )
        for value, entries in by_value
    ]  # fmt: skip
    value = template(table.default_value, asked.names)
    return [*found, table.otherwise(value)]


# --- one variable and one value -------------------------------------------------------------------


def _known(variable: str, asked: Asked) -> str | None:
    """The value of a variable that is the same for all requests; None: it is not."""
    if variable in ("host", "http_host") and asked.is_one_host:
        return asked.host
    if variable.startswith(("http_", "cookie_", "arg_")) or variable in ("host", "http_host"):
        return None
    try:
        return constant(f"${{{variable}}}", asked.names)
    except UnsayableError:
        return None


def compare_variable(variable: str, kind: str, operand: str, asked: Asked) -> bool | Match:
    """The condition that a variable has (`=`) or matches (`~`) something; raises UnsayableError."""
    if kind == "=" and PART.search(operand):
        operand = constant(operand, asked.names)
    value = asked.names.values.get(variable)
    if value is not None and (other := _placeholder_variable(value)) is not None:
        variable = other
    known = _known(variable, asked)
    if known is not None:
        return _holds(kind, known.lower() if variable in ("host", "http_host") else known, operand)
    if variable in ("host", "http_host") and kind == "=":
        # Names that are compared have routes of their own.
        return False
    if variable in ("host", "http_host"):
        raise UnsayableError(f"the host is decided by server_name, which {asked.host} leaves open")
    if variable == "request_method":
        return {"methods": _methods(kind, operand)}
    for prefix, key in (("http_", "headers"), ("cookie_", "cookies"), ("arg_", "query")):
        if (name := variable.removeprefix(prefix)) != variable:
            if key == "headers":
                name = name.replace("_", "-")
            return {key: {name: _value(kind, operand)}}
    if variable in ("uri", "document_uri", "request_uri"):
        return _path_match(variable, kind, operand)
    if variable in ("remote_addr", "realip_remote_addr") and kind == "=":
        try:
            ipaddress.ip_address(operand)
        except ValueError:
            return False
        return {"clients": [operand]}
    if variable == "ssl_client_verify" and kind == "=":
        if operand == "SUCCESS":
            return {"tls": {"client_certificate": True}}
        if operand == "NONE":
            return {"tls": {"client_certificate": False}}
        return False
    if variable == "server_protocol" and kind == "=" and operand in _PROTOCOLS:
        return {"protocols": [_PROTOCOLS[operand]]}
    if variable == "ssl_protocol" and kind == "=" and operand in ("TLSv1.2", "TLSv1.3"):
        return {"tls": {"versions": [operand]}}
    if variable == "ssl_early_data":
        return {"tls": {"early_data": operand == "1"}}
    raise UnsayableError(f"no route has a condition on ${variable}")


_PROTOCOLS = {"HTTP/1.1": "http/1.1", "HTTP/2.0": "h2", "HTTP/3.0": "h3"}


def _placeholder_variable(value: str) -> str | None:
    """The variable that a template stands for, if it is nothing else."""
    found = re.fullmatch(r"\{(header|cookie|query)\.([\w-]+)\}", value)
    if found is not None:
        prefix = {"header": "http_", "cookie": "cookie_", "query": "arg_"}[found[1]]
        return prefix + found[2].replace("-", "_")
    return {
        "{method}": "request_method", "{path}": "uri", "{uri}": "request_uri",
        "{client.ip}": "remote_addr", "{host}": "host",
    }.get(value)  # fmt: skip


_METHODS = re.compile(r"\^?\(?(?:\?:)?([A-Z]+(?:\|[A-Z]+)*)\)?\$?")


def _methods(kind: str, operand: str) -> list[str]:
    if kind == "=":
        return [operand.upper()]
    found = _METHODS.fullmatch(operand.upper() if kind == "~*" else operand)
    if found is None:
        raise UnsayableError(f"the methods that match {operand} cannot be listed")
    return found[1].split("|")


def _value(kind: str, operand: str) -> str:
    """A condition on a value in the notation of routes."""
    if kind != "=":
        return f"~{pattern_of(operand, ignore_case=kind == '~*')}"
    if not operand:
        return "!"
    if operand in ("*", "!") or operand.startswith("~"):
        return f"~^{re.escape(operand)}$"
    return operand


def _path_match(variable: str, kind: str, operand: str) -> Match:
    if kind == "=":
        if not re.fullmatch(r"/[A-Za-z0-9._~!$&'()+,;=:@/-]*", operand):
            raise UnsayableError(f"{operand} is not a path without a query")
        return {"path_exact": operand}
    if variable == "request_uri" and "\\?" in operand:
        raise UnsayableError("paths are matched without their query")
    names = extensions_of(operand) if kind == "~*" else None
    if names is not None:
        return {"extensions": names}
    return {"path_regex": pattern_of(operand, ignore_case=kind == "~*")}
