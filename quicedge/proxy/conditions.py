"""Conditions of routes beyond host and path, compiled once per configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from quicedge.config.filterlimits import MATCHED_LENGTH
from quicedge.config.patterns import compile_pattern
from quicedge.config.schema import Route, TlsFacts
from quicedge.http.cookies import cookies
from quicedge.http.message import Request
from quicedge.proxy.client import ClientInfo, host_of
from quicedge.shares.prefixes import Networks, packed

_PROTOCOLS = {"h3": b"3", "h2": b"2", "http/1.1": b"1.1"}


@dataclass(slots=True)
class Asked:
    """What a route is looked up for; `path` is in normal form."""

    request: Request
    client: ClientInfo
    path: bytes


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: what it is in words, and whether a request meets it."""

    text: str
    holds: Callable[[Asked], bool]


def conditions_of(route: Route) -> tuple[Condition, ...]:
    """All conditions of a route, the cheapest first."""
    return tuple(_conditions(route))


def _conditions(route: Route) -> Iterator[Condition]:
    if route.methods:
        methods = frozenset(name.encode() for name in route.methods)
        yield Condition(f"method {_either(route.methods)}", lambda a: _method(a) in methods)
    if route.protocols:
        versions = frozenset(_PROTOCOLS[name] for name in route.protocols)
        yield Condition(
            f"protocol {_either(route.protocols)}", lambda a: a.client.http_version in versions
        )
    if route.extensions:
        endings = tuple(b"." + name.encode() for name in route.extensions)
        yield Condition(
            f"extension {_either(route.extensions)}", lambda a: a.path.lower().endswith(endings)
        )
    if route.path_regex is not None:
        pattern = compile_pattern(route.path_regex)
        yield Condition(f"path ~ {route.path_regex}", lambda a: _finds(pattern, a.path))
    for name, wanted in route.headers.items():
        yield _value_condition(f"header {name}", wanted, _header(name.lower().encode()))
    for name, wanted in route.query.items():
        yield _value_condition(f"query {name}", wanted, _query(name.encode()))
    for name, wanted in route.cookies.items():
        yield _value_condition(f"cookie {name}", wanted, _cookie(name.encode()))
    if route.clients:
        networks = Networks(route.clients)
        yield Condition(
            f"client in {', '.join(route.clients)}",
            lambda a: networks.longest(packed(host_of(a.client))) >= 0,
        )
    yield from _tls_conditions(route)


def _tls_conditions(route: Route) -> Iterator[Condition]:
    tls = route.tls
    if tls is None:
        return
    if tls.versions:
        versions = frozenset(tls.versions)
        yield Condition(
            f"TLS version {_either(tls.versions)}", lambda a: a.client.tls.version in versions
        )
    if tls.server_names:
        names = frozenset(name.lower() for name in tls.server_names)
        yield Condition(
            f"TLS server name {_either(tls.server_names)}",
            lambda a: (a.client.tls.server_name or "").lower() in names,
        )
    if tls.early_data is not None:
        wanted = tls.early_data
        yield Condition(
            "early data" if wanted else "no early data", lambda a: a.client.early_data is wanted
        )
    yield from _certificate_conditions(tls)


def _certificate_conditions(tls: TlsFacts) -> Iterator[Condition]:
    if tls.client_certificate is not None:
        wanted = tls.client_certificate
        yield Condition(
            "client certificate" if wanted else "no client certificate",
            lambda a: (a.client.tls.certificate is not None) is wanted,
        )
    if tls.client_subjects:
        subjects = [_matcher(text) for text in tls.client_subjects]
        yield Condition(
            f"client subject {_either(tls.client_subjects)}",
            lambda a: (
                (certificate := a.client.tls.certificate) is not None
                and any(matches(certificate.subject) for matches in subjects)
            ),
        )
    if tls.client_names:
        names = [_matcher(text) for text in tls.client_names]
        yield Condition(
            f"client name {_either(tls.client_names)}",
            lambda a: (
                (certificate := a.client.tls.certificate) is not None
                and any(matches(name) for matches in names for name in certificate.names)
            ),
        )


def _matcher(text: str) -> Callable[[str], bool]:
    """`~pattern`, which matches the whole of a value, or the value itself."""
    if not text.startswith("~"):
        return lambda value: value == text
    pattern = compile_pattern(f"^(?:{text[1:]})$")
    return lambda value: _finds(pattern, value.encode())


def _either(names: list[Any]) -> str:
    return " or ".join(map(str, names))


def _method(asked: Asked) -> bytes:
    """A tunnel is asked for with GET in HTTP/1.1, and inside the edge with CONNECT."""
    return asked.request.method if asked.request.protocol is None else b"GET"


def _finds(pattern: Any, value: bytes) -> bool:
    return len(value) <= MATCHED_LENGTH and pattern.search(value) is not None


# --- values by name -------------------------------------------------------------------------------

Values = Callable[[Asked], list[bytes]]


def _value_condition(what: str, wanted: str, values: Values) -> Condition:
    """A condition on values: `*` any, `!` none, `~pattern`, else the value itself."""
    if wanted == "*":
        return Condition(f"{what} present", lambda a: bool(values(a)))
    if wanted == "!":
        return Condition(f"{what} absent", lambda a: not values(a))
    if wanted.startswith("~"):
        pattern = compile_pattern(wanted[1:])
        return Condition(
            f"{what} ~ {wanted[1:]}", lambda a: any(_finds(pattern, value) for value in values(a))
        )
    exact = wanted.encode()
    return Condition(f"{what} = {wanted}", lambda a: exact in values(a))


def _header(name: bytes) -> Values:
    return lambda asked: [value for key, value in asked.request.fields if key == name]


def _query(name: bytes) -> Values:
    def values(asked: Asked) -> list[bytes]:
        pairs = asked.request.path.partition(b"?")[2].split(b"&")
        return [value for key, _, value in (pair.partition(b"=") for pair in pairs) if key == name]

    return values


def _cookie(name: bytes) -> Values:
    def values(asked: Asked) -> list[bytes]:
        return [value.strip(b'"') for key, value in cookies(asked.request.fields) if key == name]

    return values
