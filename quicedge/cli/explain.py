"""`quicedge check --explain`: which route a request takes, and why not another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import click

from quicedge.cli import url as urls
from quicedge.cli.destinations import shares_text
from quicedge.config.host_port import HostPort
from quicedge.config.routes import filters_of, upstreams_of
from quicedge.config.schema import Config, Route
from quicedge.http.grammar import TOKEN
from quicedge.http.message import Field, Request
from quicedge.http.target import is_ambiguous, normal_path
from quicedge.proxy.client import ClientInfo, TlsFacts
from quicedge.proxy.conditions import Asked
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.rewrite import Rewrite
from quicedge.proxy.reply import Reply
from quicedge.proxy.router import Router
from quicedge.proxy.split import Split

_VERSIONS = {"h3": b"3", "h2": b"2", "http/1.1": b"1.1"}


@dataclass
class SupposedClient:
    """The client of a request that is only supposed, as far as conditions ask for it."""

    address: tuple[str, int] | None
    http_version: bytes
    tls: TlsFacts
    early_data: bool = False


@dataclass(frozen=True)
class Supposed:
    """A request that is only supposed."""

    method: str
    target: urls.Target
    fields: Sequence[Field] = ()
    client: str | None = None
    protocol: str = "h3"

    @property
    def request(self) -> Request:
        authority = self.target.authority.encode()
        path = self.target.path.encode()
        return Request(self.method.encode(), b"https", authority, path, list(self.fields))

    @property
    def client_info(self) -> ClientInfo:
        address = None if self.client is None else (self.client, 0)
        tls = TlsFacts("TLSv1.3", server_name=self.target.host)
        return cast(ClientInfo, SupposedClient(address, _VERSIONS[self.protocol], tls))


def parse_supposed(
    text: str, headers: Sequence[str], client: str | None, protocol: str
) -> Supposed:
    """The request in `GET https://host/path`; raises click.BadParameter."""
    method, _, url = text.strip().rpartition(" ")
    method = method.strip() or "GET"
    if not TOKEN.fullmatch(method.encode()):
        raise click.BadParameter(f"{method!r} is not a method; write 'GET https://host/path'")
    try:
        target = urls.parse(url, path_as_is=True)
    except urls.UrlError as error:
        raise click.BadParameter(f"{error}; write 'GET https://host/path'") from None
    fields = []
    for line in headers:
        name, mark, value = line.partition(":")
        if not mark or not TOKEN.fullmatch(name.strip().encode()):
            raise click.BadParameter(f"{line!r} is not NAME: VALUE")
        fields.append((name.strip().lower().encode(), value.strip().encode()))
    if client is not None and HostPort(client, 0).ip is None:
        raise click.BadParameter(f"{client!r} is not an IP address")
    return Supposed(method, target, fields, client, protocol)


def explain(config: Config, supposed: Supposed) -> tuple[list[str], bool]:
    """What becomes of a request, line by line, and whether there is a route for it."""
    request, client = supposed.request, supposed.client_info
    path = normal_path(request.path)
    lines = [f"{supposed.method} https://{supposed.target.authority}{supposed.target.path}"]
    if is_ambiguous(request.path):
        return [
            *lines,
            "  answered 400: servers disagree about the dot segments of the path",
        ], False
    if path != request.path.partition(b"?")[0]:
        lines.append(f"  routed as {path.decode('ascii', 'replace')}")
    asked = Asked(request, client, path)
    numbers = {id(route): index for index, route in enumerate(config.routes)}
    router = Router(config.routes)
    for place in router.places(request.authority, request.path):
        for route, conditions in place.routes:
            label = f"  routes[{numbers[id(route)]}] at {place.host}{place.path}"
            unmet = next((item.text for item in conditions if not item.holds(asked)), None)
            if unmet is not None:
                lines.append(f"{label}: no, not met: {unmet}")
                continue
            if router.is_evaded(route, request, client):
                reason = "servers disagree about the slashes of the path"
                return [*lines, f"{label}: answered 400: {reason}"], False
            met = "; ".join(item.text for item in conditions)
            lines.append(f"{label}: taken" + (f", as met: {met}" if met else ""))
            lines += _what_follows(config, route, supposed)
            return lines, True
    return [*lines, "  no route: answered 404"], False


@dataclass
class SupposedExchange:
    """An exchange that is only supposed, as far as templates ask for it."""

    request: Request
    route: Route
    client: ClientInfo
    trace: None = None


def _what_follows(config: Config, route: Route, supposed: Supposed) -> Iterator[str]:
    request, client = supposed.request, supposed.client_info
    exchange = cast(Exchange, SupposedExchange(request, route, client))
    asked: Request | Reply = request
    common = len(config.filters)
    for index, entry in enumerate(filters_of(config, route)):
        where = f"filters[{index}]" if index < common else f"route's filters[{index - common}]"
        yield f"  filter {entry.kind} ({where})"
        if entry.rewrite is not None and isinstance(asked, Request):
            asked = Rewrite(entry.rewrite).on_request(asked, exchange)
            if isinstance(asked, Reply):
                yield f"  answered {asked.response.status}: {asked.reason}"
                return
    names = upstreams_of(route)
    if not names:
        yield "  answered by the last filter"
        return
    assert isinstance(asked, Request)
    if (asked.path, asked.authority) != (request.path, request.authority):
        target = f"{asked.authority.decode()}{asked.path.decode()}"
        yield f"  asked for as {target}"
    if route.split is not None:
        yield f"  split by {route.split.key}: {shares_text(route.split)}"
        chosen = Split(route.split).expected(request, client)
        names = names if chosen is None else [chosen]
    for name in names:
        yield f"  upstream {name} ({config.upstreams[name].destination})"
