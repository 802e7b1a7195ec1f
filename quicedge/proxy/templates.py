"""Templates of the configuration, filled in for a request.

Placeholders tell of the request as the client has sent it. What they insert passed
`http.validation`, so that it cannot end a line; in a URL it is percent-encoded as well.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import quote_from_bytes

from quicedge.config.filterlimits import MATCHED_LENGTH
from quicedge.config.patterns import compile_pattern
from quicedge.config.placeholders import Placeholder, parse_template
from quicedge.config.routes import host_text
from quicedge.http.cookies import cookie
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.target import normal_path
from quicedge.proxy.client import Transport, host_of
from quicedge.proxy.exchange import Exchange

_SAFE_IN_URL = "-._~!$&'()*+,;=:@/%"
_NOT_IN_FIELDS = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")

Evaluate = Callable[[Exchange], bytes]


class Template:
    """A template whose parts are known; `is_constant` if it has no placeholders.

    `for_url`: what clients say of themselves (headers, cookies, the query) is percent-encoded.
    `for_html`: characters that mean something in HTML are escaped in every value.
    """

    __slots__ = ("_parts", "constant")

    def __init__(self, text: str, *, for_url: bool = False, for_html: bool = False) -> None:
        """Raises ValueError if the template is not valid."""
        self._parts: list[bytes | Evaluate] = []
        for part in parse_template(text):
            if isinstance(part, str):
                self._parts.append(part.encode())
            else:
                evaluate = _evaluator(part, for_url)
                self._parts.append(_escaped(evaluate) if for_html else evaluate)
        self.constant: bytes | None = None
        """The value if it has no placeholders."""
        if all(isinstance(part, bytes) for part in self._parts):
            self.constant = b"".join(part for part in self._parts if isinstance(part, bytes))

    def fill_text(self, exchange: Exchange) -> bytes:
        """The value for an exchange as it is, for content."""
        if self.constant is not None:
            return self.constant
        return b"".join(part if isinstance(part, bytes) else part(exchange) for part in self._parts)

    def fill(self, exchange: Exchange) -> bytes:
        """The value for an exchange: a valid field value."""
        if self.constant is not None:
            return self.constant
        value = self.fill_text(exchange).strip(b" \t")
        # Whatever a placeholder holds: a field ends where it ends.
        return value if FIELD_VALUE.fullmatch(value) else _NOT_IN_FIELDS.sub(b"", value).strip()


def _evaluator(part: Placeholder, for_url: bool) -> Evaluate:
    if for_url and part.name in ("path", "uri"):
        return _target_in_url(_PLAIN[part.name])
    if part.argument:
        evaluate = partial(_NAMED[part.name], part.argument)
        return (lambda exchange: _encoded(evaluate(exchange))) if for_url else evaluate
    return _PLAIN[part.name]


def _target_in_url(evaluate: Evaluate) -> Evaluate:
    """The asterisk form (`OPTIONS *`) is no part of a URL: routes take it for `/`."""

    def target(exchange: Exchange) -> bytes:
        value = evaluate(exchange)
        return b"/" if value == b"*" else value

    return target


def _escaped(evaluate: Evaluate) -> Evaluate:
    return lambda exchange: html.escape(evaluate(exchange).decode("latin-1")).encode("latin-1")


def _encoded(value: bytes) -> bytes:
    return quote_from_bytes(value, _SAFE_IN_URL).encode()


# --- what there is to insert --------------------------------------------------------------------


def _host(exchange: Exchange) -> bytes:
    authority = exchange.request.authority
    if authority[:1] == b"[":
        return authority.partition(b"]")[0] + b"]"
    return authority.partition(b":")[0]


def _port(exchange: Exchange) -> bytes:
    address = exchange.client.address
    return b"" if address is None else b"%d" % address[1]


def _milliseconds(name: str, exchange: Exchange) -> bytes:
    seconds = getattr(exchange.client.transport, name)
    return b"" if seconds is None else b"%.3f" % (seconds * 1000)


def _transport(read: Callable[[Transport], object], exchange: Exchange) -> bytes:
    value = read(exchange.client.transport)
    return b"" if value is None else str(value).encode()


def _loss(exchange: Exchange) -> bytes:
    loss = exchange.client.transport.loss_ratio
    return b"" if loss is None else b"%.4f" % loss


def _tls(name: str, exchange: Exchange) -> bytes:
    return (getattr(exchange.client.tls, name) or "").encode("ascii", "replace")


def _route(name: str, exchange: Exchange) -> bytes:
    value = getattr(exchange.route, name, None)
    return (value or "").encode("ascii", "replace")


def _route_host(exchange: Exchange) -> bytes:
    return host_text(exchange.route).encode() if exchange.route is not None else b""


def _trace_id(exchange: Exchange) -> bytes:
    return exchange.trace.trace_id.encode() if exchange.trace is not None else b""


def _marked_query(mark: bytes, exchange: Exchange) -> bytes:
    query = exchange.request.path.partition(b"?")[2]
    return mark + query if query else b""


_PROTOCOLS = {b"3": b"h3", b"2": b"h2", b"1.1": b"http/1.1"}

_PLAIN: dict[str, Evaluate] = {
    "&query": partial(_marked_query, b"&"),
    "?query": partial(_marked_query, b"?"),
    "authority": lambda exchange: exchange.request.authority,
    "client.ip": lambda exchange: host_of(exchange.client).encode(),
    "client.port": _port,
    "host": _host,
    "method": lambda exchange: exchange.request.method,
    "path": lambda exchange: exchange.request.path.partition(b"?")[0],
    "protocol": lambda exchange: _PROTOCOLS.get(
        exchange.client.http_version, exchange.client.http_version
    ),
    "query": lambda exchange: exchange.request.path.partition(b"?")[2],
    "route.host": _route_host,
    "route.path": partial(_route, "path"),
    "route.upstream": lambda exchange: (exchange.upstream or "").encode("ascii", "replace"),
    "scheme": lambda exchange: exchange.request.scheme,
    "tls.cipher": partial(_tls, "cipher"),
    "tls.group": partial(_tls, "group"),
    "tls.server_name": partial(_tls, "server_name"),
    "tls.version": partial(_tls, "version"),
    "trace_id": _trace_id,
    "transport.congestion_window": partial(_transport, lambda t: t.congestion_window),
    "transport.connection_id": partial(_transport, lambda t: t.connection_id),
    "transport.loss": _loss,
    "transport.min_rtt_ms": partial(_milliseconds, "min_rtt"),
    "transport.protocol": partial(_transport, lambda t: t.kind.value),
    "transport.quic_version": partial(_transport, lambda t: t.version),
    "transport.rtt_ms": partial(_milliseconds, "smoothed_rtt"),
    "uri": lambda exchange: exchange.request.path,
}


def _header(name: str, exchange: Exchange) -> bytes:
    key = name.lower().encode()
    return b", ".join(value for field, value in exchange.request.fields if field == key)


def query_value(name: bytes, target: bytes) -> bytes | None:
    """The first value of a parameter of a target's query, as it was sent; None: there is none."""
    for pair in target.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None


def _query(name: str, exchange: Exchange) -> bytes:
    return query_value(name.encode(), exchange.request.path) or b""


def _cookie(name: str, exchange: Exchange) -> bytes:
    return cookie(exchange.request.fields, name.encode()) or b""


def _match(name: str, exchange: Exchange) -> bytes:
    pattern = exchange.route.path_regex if exchange.route is not None else None
    path = normal_path(exchange.request.path)
    if pattern is None or len(path) > MATCHED_LENGTH:
        return b""
    found = compile_pattern(pattern).search(path)
    if found is None:
        return b""
    value: bytes | None = found.group(int(name) if name.isdigit() else name.encode())
    return value or b""


_NAMED: dict[str, Callable[[str, Exchange], bytes]] = {
    "cookie": _cookie,
    "header": _header,
    "match": _match,
    "query": _query,
}
