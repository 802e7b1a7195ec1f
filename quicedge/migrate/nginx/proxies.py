"""`proxy_pass` and `grpc_pass`: which upstream is asked, for what, and how long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from quicedge.config.filter_validation import template_problem
from quicedge.migrate.errors import SourceError
from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.conditions import Table
from quicedge.migrate.nginx.cookies import cookies
from quicedge.migrate.nginx.filters import Filter
from quicedge.migrate.nginx.headers import request_headers
from quicedge.migrate.nginx.outcomes import State
from quicedge.migrate.nginx.redirects import redirects
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.subrequests import Subrequests
from quicedge.migrate.nginx.upstreams import Address, Upstreams, address_of
from quicedge.migrate.nginx.values import duration, number_of, size, size_of, time_of
from quicedge.migrate.nginx.variables import (
    DIVIDED,
    PART,
    UnsayableError,
    literal,
    template,
    variables,
)
from quicedge.migrate.nginx.world import World

_MAX_BODY = 1 << 20
"""nginx's default of client_max_body_size."""


class Proxies:
    """Makes what passes requests on to servers."""

    def __init__(self, world: World, upstreams: Upstreams, subrequests: Subrequests) -> None:
        self._world = world
        self._note = world.notebook
        self._upstreams = upstreams
        self._subrequests = subrequests

    def serve(self, handler: Directive, state: State) -> tuple[dict[str, Any], list[Filter]]:
        """The keys and filters of a route that passes on; raises UnsayableError."""
        names, scope = state.asked.names, state.scope
        prefix = "grpc" if handler.name == "grpc_pass" else "proxy"
        divided = self._dividing(handler, state)
        if divided is not None:
            address, keys = self._split(handler, *divided, state)
            shares = keys.get("split", {}).get("shares", {})
            if set(shares) == {entry.args[0] for entry in divided[1].directive.body}:
                # The value is the name of the upstream.
                names = names.with_values({divided[0]: "{route.upstream}"})
                for directive in scope.all("proxy_set_header"):
                    if divided[0] in variables(directive.args[-1]):
                        effects = visible.origin(directive.args[0])
                        self._note.different(directive, "the side may be another", *effects)
        else:
            address, keys = self._asked(handler, state)
        keys |= self._max_body(scope)
        keys |= self._timeouts(scope, prefix)
        if not any(d.args[0].lower() == "upgrade" for d in scope.all("proxy_set_header")):
            # nginx forwards no request to switch protocols unless it is told to.
            keys["upgrade"] = []
        rewrites = self._target(handler, address, state)
        host = _host_of(address) if "upstream" in keys else None
        headers = request_headers(scope, prefix, host, names, self._note)
        note = self._note
        changed = list(self._responses(handler, address, state)) if prefix == "proxy" else []
        version = scope.last("proxy_http_version")
        note.translated(version, "HTTP/1.1 with kept connections, or HTTP/2")
        buffers = self._buffers(scope, prefix)
        mirrors = self._subrequests.mirrors(state)
        return keys, [*rewrites, *(h for h in headers if h), *changed, *buffers, *mirrors]

    def _responses(self, handler: Directive, address: Address, state: State) -> Iterator[Filter]:
        """The filters that change what origins answer."""
        host = _host_of(address)
        values = {"proxy_host": host, "proxy_port": host.partition(":")[2] or "80"}
        names = state.asked.names.with_values(values)
        yield from redirects(handler, state, names, self._note)
        yield from cookies(state.scope, names, self._note)

    # --- upstreams --------------------------------------------------------------------------------

    def _dividing(self, handler: Directive, state: State) -> tuple[str, Table] | None:
        """The variable that chooses the upstream, and the `split_clients` that it is from, if any
        does."""
        for variable in variables(handler.args[0]):
            value = state.asked.names.values.get(variable, "")
            name = value.removeprefix(DIVIDED) if value.startswith(DIVIDED) else variable
            table = self._world.tables.get(name)
            if table is not None and table.directive.name == "split_clients":
                return variable, table
        return None

    def _asked(self, handler: Directive, state: State) -> tuple[Address, dict[str, Any]]:
        """The one upstream that is asked; raises UnsayableError."""
        names, scope = state.asked.names, state.scope
        prefix = "grpc" if handler.name == "grpc_pass" else "proxy"
        text = template(handler.args[0], names)
        if not re.match(r"(?:[a-z]+://)?+(?:unix:)?[^/?{}]+(?:$|[/?]|\{uri\}|\{path\})", text):
            raise UnsayableError(f"which server is asked depends on the request: {text}")
        address = address_of(text, prefix if prefix == "grpc" else "http")
        return address, {"upstream": self._upstreams.of_address(address, scope, handler)}

    def _split(
        self, handler: Directive, variable: str, table: Table, state: State
    ) -> tuple[Address, dict[str, Any]]:
        """The upstreams that clients are divided between; raises UnsayableError."""
        note = self._note
        shares: dict[str, float] = {}
        addresses = []
        for entry in table.directive.body:
            names = state.asked.names.with_values({variable: literal(entry.args[0])})
            address = address_of(template(handler.args[0], names))
            addresses.append(address)
            name = self._upstreams.of_address(address, state.scope, handler)
            left = 100 - sum(shares.values())
            share = left if entry.name == "*" else _percent(entry)
            shares[name] = round(shares.get(name, 0) + share, 2)
            note.translated(entry)
        if len({address.uri for address in addresses}) > 1:
            raise UnsayableError("the shares have paths of their own")
        keys = [(name, _split_key(name)) for name in variables(table.source)]
        by = next((key for _, key in keys if key is not None), None)
        if by is None:
            raise UnsayableError(f"shares of {table.source}, not of clients, a header or a cookie")
        # The largest share is the one that the others take their clients from.
        first = max(shares, key=lambda name: shares[name])
        split: dict[str, Any] = {"shares": {first: shares[first], **shares}}
        if by != "client":
            split["by"] = by
        if seed := PART.sub("", table.source):
            split["seed"] = seed
        split["shares"] = {name: _number(share) for name, share in split["shares"].items()}
        words = "another hash: clients may come to another side than before"
        if len(keys) > 1:
            words = f"by {by} alone, and with another hash"
        note.different(table.directive, words, visible.SERVER)
        if not any(d.args[0].lower() == "host" for d in state.scope.all("proxy_set_header")):
            note.different(handler, "origins are asked for the client's host", visible.HOST)
        if len(shares) < 2:
            return addresses[0], {"upstream": first}
        return addresses[0], {"split": split}

    # --- settings of a route ----------------------------------------------------------------------

    def _max_body(self, scope: Scope) -> dict[str, Any]:
        directive = scope.last("client_max_body_size")
        if directive is None:
            return {"max_body": size(_MAX_BODY)}
        self._note.translated(directive)
        most = size_of(directive)
        return {"max_body": size(most)} if most else {}

    def _timeouts(self, scope: Scope, prefix: str) -> dict[str, Any]:
        note = self._note
        found: dict[str, Any] = {}
        read = scope.last(f"{prefix}_read_timeout")
        if read is not None:
            seconds = time_of(read)
            time = duration(seconds)
            found = {"first_byte_timeout": time, "idle_timeout": time} if seconds else {}
            if seconds and any(
                d.args[0].lower() == "upgrade" for d in scope.all("proxy_set_header")
            ):
                found["tunnel_idle_timeout"] = time
            note.translated(read, ", ".join(found))
        send = scope.last(f"{prefix}_send_timeout")
        if send is not None:
            note.different(send, "idle_timeout counts once the response has begun")
        retry = scope.last(f"{prefix}_next_upstream")
        tries = scope.last(f"{prefix}_next_upstream_tries")
        if retry is not None and retry.args[0] == "off":
            note.translated(retry, "retries = 0")
            found["retries"] = 0
        elif retry is not None:
            words = "requests are repeated that no origin has processed"
            effects = (visible.SERVER, visible.REACHED, visible.status(502), visible.status(504))
            note.different(retry, words, *effects)
        if tries is not None and tries.args[0] != "0" and found.get("retries") != 0:
            found["retries"] = min(max(number_of(tries) - 1, 0), 100)
            note.translated(tries, f"retries = {found['retries']}")
        limit = scope.last(f"{prefix}_next_upstream_timeout")
        if limit is not None:
            note.left_out(limit, "retries are limited by retry_budget")
        return found

    def _target(self, handler: Directive, address: Address, state: State) -> list[Filter]:
        """The filters that make what the origin is asked for."""
        rewrites: list[Filter] = [{"rewrite": dict(rewrite)} for rewrite in state.rewrites]
        uri, location = address.uri, state.location
        note = self._note
        if "$" in handler.args[0].partition("://")[2].partition("/")[2] or (
            "$" in handler.args[0] and uri
        ):
            note.translated(handler)
            if uri in ("{uri}", "/{uri}", "{path}{?query}", ""):
                return rewrites
            text = uri if uri.startswith(("/", "{uri}", "{path}")) else f"/{uri}"
            if problem := template_problem(text):
                raise UnsayableError(problem)
            if text.endswith("{uri}") and text != "{uri}":
                text = f"{text.removesuffix('{uri}')}{{path}}{{?query}}"
            keeps = text.endswith("{?query}")
            rewrite: dict[str, Any] = {"path": text.removesuffix("{?query}")}
            if not keeps:
                rewrite["query"] = "drop"
            return [{"rewrite": rewrite}]
        if uri and not state.rewrites:
            words = "the path is forwarded as clients encode it"
            note.different(handler, words, visible.ENCODING)
        else:
            note.translated(handler)
        if not uri or state.rewrites:
            if uri and uri != "/":
                words = f"{uri} counts only where no rewrite has changed the path"
                note.different(handler, words, visible.TARGET)
            return rewrites
        if location.modifier == "=":
            return [{"rewrite": {"path": uri}}]
        if "?" in uri or "{" in uri:
            raise UnsayableError(f"{uri} in place of a prefix")
        prefix = location.pattern if location.is_prefix else "/"
        if prefix == uri:
            return []
        if not prefix.endswith("/") and uri.endswith("/"):
            words = f"{prefix}/x becomes {uri}x, without the second slash"
            note.different(handler, words, visible.TARGET)
        if prefix.endswith("/") == uri.endswith("/") and prefix.endswith("/"):
            rewrite = {}
            if prefix != "/":
                rewrite["strip_prefix"] = prefix.rstrip("/")
            if uri != "/":
                rewrite["add_prefix"] = uri.rstrip("/")
            return [{"rewrite": rewrite}]
        pattern = f"^{re.escape(prefix)}/*" if uri.endswith("/") else f"^{re.escape(prefix)}"
        return [{"rewrite": {"pattern": pattern, "replacement": uri}}]

    def _buffers(self, scope: Scope, prefix: str) -> list[Filter]:
        found: dict[str, bool] = {}
        for name, key in (("proxy_request_buffering", "request"), ("proxy_buffering", "response")):
            directive = scope.last(name) if prefix == "proxy" else None
            if directive is None:
                continue
            if directive.args[0] == "on":
                found[key] = True
            self._note.translated(directive, "" if key in found else "content is streamed")
        return [{"buffer": found}] if found else []


def _split_key(variable: str) -> str | None:
    """What divides clients."""
    if variable in ("remote_addr", "binary_remote_addr"):
        return "client"
    if variable == "request_uri":
        return "target"
    if variable in ("uri", "document_uri"):
        return "path"
    if variable in ("request_id", "msec"):
        return "request"
    for prefix, kind in (("http_", "header"), ("cookie_", "cookie")):
        if (name := variable.removeprefix(prefix)) != variable:
            return f"{kind}:{name.replace('_', '-') if kind == 'header' else name}"
    return None


def _percent(entry: Directive) -> float:
    found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,2})?)%", entry.name)
    if found is None:
        raise SourceError(f"{entry.place}: {entry.name!r} is not a share such as 0.5%")
    return float(found[1])


def _number(share: float) -> float | int:
    return int(share) if share == int(share) else share


def _host_of(address: Address) -> str:
    """What nginx sends as Host by default."""
    if address.host.startswith("unix:"):
        return "localhost"
    default = ":443" if address.is_tls else ":80"
    return address.host.removesuffix(default)
