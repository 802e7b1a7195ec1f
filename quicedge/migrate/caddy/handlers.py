"""Handlers of Caddy's JSON as filters and upstreams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quicedge.migrate.caddy.conditions import UnsayableError
from quicedge.migrate.caddy.placeholders import template
from quicedge.migrate.caddy.replacements import replacements
from quicedge.migrate.effects import Aspect, Effect, Side

_CODINGS = {"gzip": "gzip", "zstd": "zstd", "br": "br"}
_BALANCE = {
    "round_robin": "round_robin",
    "weighted_round_robin": "round_robin",
    "least_conn": "least_requests",
    "random_choose": "two_choices",
    "ip_hash": "client_address",
    "client_ip_hash": "client_address",
}
_NANOSECONDS = 1e9


def _fields(side: Side, *names: str) -> tuple[Effect, ...]:
    return tuple(Effect(side, Aspect.HEADER, name) for name in names)


_COMPRESSED = _fields(Side.CLIENT, "vary", "etag", "content-encoding")
LISTED = (
    Effect(Side.CLIENT, Aspect.BODY),
    *_fields(Side.CLIENT, "content-security-policy", "last-modified"),
)
"""Of lists of files."""
STUCK = _fields(Side.CLIENT, "set-cookie")
_ASKED = _fields(Side.CLIENT, "www-authenticate")
AUTHORIZED = (
    Effect(Side.ORIGIN, Aspect.TARGET),
    Effect(Side.CLIENT, Aspect.STATUS, "101->"),
    *_fields(Side.ORIGIN, "content-type", "x-forwarded-uri", "upgrade"),
)
"""Of a service that is asked about requests."""


@dataclass
class Remark:
    """What of a handler is left out: a line in its block, and why."""

    name: str
    words: str
    about: str = ""
    """The first word behind the name, if there may be several such lines."""
    effects: tuple[Effect, ...] = ()


@dataclass
class Translated:
    """Filters in the order in which requests pass them, and what is left out."""

    filters: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    words: str = ""
    """In what all of it differs."""
    effects: tuple[Effect, ...] = ()
    """Where that is seen."""


def headers(handler: Mapping[str, Any]) -> Translated:
    """`header` and `request_header`."""
    done = Translated()
    rules: dict[str, Any] = {}
    words: list[str] = []
    for side in ("request", "response"):
        operations = handler.get(side) or {}
        required = operations.get("require")
        if required is not None:
            defaults = operations.get("set") or {}
            if required != {"headers": dict.fromkeys(defaults)}:
                raise UnsayableError("a condition on the response")
            # `header ?NAME VALUE`: only where there is none.
            rules[side] = {"default": _rules(operations)["set"]}
            continue
        if "replace" in operations:
            words += _replace(done, handler, side, operations)
        found = _rules(operations)
        if found:
            rules[side] = found
    if rules:
        done.filters.append({"headers": rules})
    changed = [
        name
        for kind in ("set", "default", "add")
        for name in rules.get("response", {}).get(kind, ())
    ]
    if changed:
        words.append("in error responses, too")
        done.effects += _fields(Side.CLIENT, *(f"error {name}" for name in changed))
    done.words = "; ".join(words)
    return done


def _replace(
    done: Translated, handler: Mapping[str, Any], side: str, operations: Mapping[str, Any]
) -> Iterator[str]:
    """Parts of values that are replaced; yields in what that differs."""
    fields = operations["replace"]
    if side == "request":
        effects = _fields(Side.ORIGIN, *map(str.lower, fields))
        done.remarks += [
            Remark("header_up", "replacing a part of a value", name, effects) for name in fields
        ]
        return
    is_of_proxy = "handler" not in handler
    if not is_of_proxy and not operations.get("deferred"):
        return  # There is no field yet of which Caddy could replace a part.
    line = "header_down" if is_of_proxy else "header"
    for replaced in replacements(fields):
        effects = _fields(Side.CLIENT, replaced.name)
        if replaced.filter is None:
            done.remarks.append(Remark(line, replaced.words, replaced.field, effects))
            continue
        done.filters.append(replaced.filter)
        words = replaced.words or ("" if is_of_proxy else "in responses of origins alone")
        if words:
            yield words
            done.effects += effects


def _rules(operations: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if operations.get("delete"):
        names = [name.lower() for name in operations["delete"]]
        if any("*" in name.rstrip("*") for name in names):
            raise UnsayableError("a wildcard at the start of a field name")
        found["remove"] = names
    for theirs in ("set", "add"):
        values = operations.get(theirs) or {}
        if values:
            found[theirs] = {
                name.lower(): template(", ".join(value)) for name, value in values.items()
            }
    return found


def encode(handler: Mapping[str, Any]) -> Translated:
    settings: dict[str, Any] = {}
    order = handler.get("prefer") or list(handler.get("encodings", {}))
    codings = [_CODINGS[name] for name in order if name in _CODINGS]
    if codings:
        settings["encodings"] = codings
    settings["min_size"] = handler.get("minimum_length", 512)
    types = handler.get("match", {}).get("headers", {}).get("Content-Type")
    if types:
        settings["types"] = [_media_type(text) for text in types]
    level = handler.get("encodings", {}).get("gzip", {}).get("level")
    if level:
        settings["gzip_level"] = level
    words = "`vary` and `etag` are written differently"
    if not types:
        words += "; for the types that quicedge has by default"
    return Translated([{"compress": settings}], words=words, effects=_COMPRESSED)


def _media_type(text: str) -> str:
    return text.rstrip("*").rstrip(";") + ("*" if text.endswith("/*") else "")


def basic_auth(handler: Mapping[str, Any]) -> Translated:
    providers = handler.get("providers", {})
    basic = providers.get("http_basic")
    if basic is None:
        raise UnsayableError(f"authentication by {', '.join(providers)}")
    algorithm = basic.get("hash", {}).get("algorithm", "bcrypt")
    if algorithm != "bcrypt":
        raise UnsayableError(f"passwords are hashed with {algorithm}, and only bcrypt is supported")
    users = {one["username"]: one["password"] for one in basic.get("accounts", ())}
    settings: dict[str, Any] = {"users": users, "forward_credentials": True}
    if basic.get("realm"):
        settings["realm"] = basic["realm"]
    words = "`www-authenticate` names the charset"
    return Translated([{"basic_auth": settings}], words=words, effects=_ASKED)


def rewrite(handler: Mapping[str, Any]) -> Translated:
    """`rewrite` and `uri`, except for a stripped prefix and a whole target."""
    done = Translated()
    if "method" in handler:
        raise UnsayableError("changing the method")
    if "strip_path_suffix" in handler:
        pattern = re.escape(handler["strip_path_suffix"]) + "$"
        done.filters.append({"rewrite": {"pattern": pattern}})
    for change in handler.get("path_regexp", ()):
        replacement = re.sub(r"\$(\d)", r"\\\1", change.get("replace", ""))
        done.filters.append({"rewrite": {"pattern": change["find"], "replacement": replacement}})
        done.words = "the first match in the path is replaced, not all of them"
    for change in handler.get("uri_substring", ()):
        find = re.escape(change["find"])
        done.filters.append({"rewrite": {"pattern": find, "replacement": change["replace"]}})
        done.words = "the first occurrence in the path is replaced, not all, and none in the query"
    if "query" in handler:
        raise UnsayableError("changing the query")
    return done


def forward_auth(handler: Mapping[str, Any], upstream: str) -> dict[str, Any]:
    """The filter for what `forward_auth` becomes in Caddy's JSON."""
    copied: list[str] = []
    for response in handler.get("handle_response", ()):
        for route in response.get("routes", ()):
            for inner in route.get("handle", ()):
                changes = inner.get("request", {}) if inner.get("handler") == "headers" else {}
                for name, values in (changes.get("set") or {}).items():
                    if values != [f"{{http.reverse_proxy.header.{name}}}"]:
                        raise UnsayableError("a field of the answer under another name")
                    copied.append(name.lower())
    settings: dict[str, Any] = {"upstream": upstream, "path": template(handler["rewrite"]["uri"])}
    if copied:
        settings["copy_headers"] = copied
    return {"forward_auth": settings}


def is_forward_auth(handler: Mapping[str, Any]) -> bool:
    """Whether a proxy asks about requests, and does not answer them."""
    responses = handler.get("handle_response") or ()
    asks = handler.get("rewrite", {}).get("method") == "GET"
    return asks and any(one.get("match", {}).get("status_code") == [2] for one in responses)


def upstream_of(handler: Mapping[str, Any]) -> tuple[dict[str, Any], list[Remark]]:
    """The upstream of a proxy; raises UnsayableError."""
    remarks: list[Remark] = []
    transport = handler.get("transport") or {}
    protocol = transport.get("protocol", "http")
    if protocol != "http":
        raise UnsayableError(f"origins that speak {protocol}")
    if "dynamic_upstreams" in handler:
        raise UnsayableError(
            f"servers found by {handler['dynamic_upstreams'].get('source', 'discovery')}"
        )
    tls = transport.get("tls")
    scheme = "http" if tls is None else "https"
    found: dict[str, Any] = {
        "servers": [_url(one["dial"], scheme) for one in handler.get("upstreams", ())]
    }
    if not found["servers"]:
        raise UnsayableError("no servers")
    versions = transport.get("versions") or []
    if "h2c" in versions or versions == ["2"]:
        found["protocol"] = "h2"
    if tls:
        if tls.get("insecure_skip_verify"):
            found["tls_verify"] = False
        if tls.get("server_name"):
            found["tls_server_name"] = tls["server_name"]
        if tls.get("ca", {}).get("pem_files"):
            found["tls_ca"] = tls["ca"]["pem_files"][0]
    found.update(_timeouts(transport))
    found.update(_balancing(handler.get("load_balancing") or {}, remarks))
    found.update(_health(handler.get("health_checks") or {}, remarks))
    if handler.get("trusted_proxies"):
        remarks.append(Remark("trusted_proxies", "forwarding fields of clients are never trusted"))
    if "request_buffers" in handler or "response_buffers" in handler:
        remarks.append(Remark("request_buffers", "see the filter buffer"))
    return found, remarks


def _url(dial: str, scheme: str) -> str:
    if dial.startswith("unix/"):
        return f"unix:{dial.removeprefix('unix/')}"
    if "{" in dial:
        raise UnsayableError(f"the address {dial} is made from the request")
    if re.search(r":\d+-\d+$", dial):
        raise UnsayableError(f"a range of ports ({dial})")
    return f"{scheme}://{dial}"


def _timeouts(transport: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for theirs, ours in (
        ("dial_timeout", "connect_timeout"),
        ("response_header_timeout", "first_byte_timeout"),
        ("read_timeout", "idle_timeout"),
    ):
        if theirs in transport:
            yield ours, transport[theirs] / _NANOSECONDS


def _balancing(balancing: Mapping[str, Any], remarks: list[Remark]) -> Iterator[tuple[str, Any]]:
    policy = balancing.get("selection_policy") or {}
    name = policy.get("policy", "random")
    if name in _BALANCE:
        yield "balance", _BALANCE[name]
    elif name == "cookie":
        yield "sticky_cookie", policy.get("name", "lb")
    elif name in ("uri_hash", "header", "query"):
        yield "balance", "hash"
        yield "hash_by", f"header:{policy['field']}" if name == "header" else "target"
    elif "selection_policy" in balancing:
        remarks.append(Remark("lb_policy", f"{name}: requests take turns"))
    if balancing.get("retries"):
        yield "retries", balancing["retries"]
    if "try_duration" in balancing:
        remarks.append(Remark("lb_try_duration", "retries are bounded by number"))


def _health(checks: Mapping[str, Any], remarks: list[Remark]) -> Iterator[tuple[str, Any]]:
    active = checks.get("active") or {}
    if active:
        yield "health_path", active.get("uri") or active.get("path") or "/"
        if "interval" in active:
            yield "health_interval", active["interval"] / _NANOSECONDS
        for key in ("expect_status", "expect_body", "port", "headers"):
            if key in active:
                name = {"expect_status": "health_status", "expect_body": "health_body"}.get(
                    key, f"health_{key}"
                )
                remarks.append(Remark(name, "a check succeeds with 2xx or 3xx"))
    passive = checks.get("passive") or {}
    if passive:
        outliers: dict[str, Any] = {"failures": passive.get("max_fails", 1)}
        if passive.get("fail_duration"):
            outliers["eject_for"] = passive["fail_duration"] / _NANOSECONDS
        if passive.get("unhealthy_status"):
            outliers["statuses"] = list(_statuses(passive["unhealthy_status"]))
        yield "outliers", outliers


def _statuses(written: Sequence[int]) -> Iterator[int]:
    """Statuses, where 5 stands for all that begin so; the usual ones of those."""
    for status in written:
        yield from (status,) if status > 99 else (status * 100 + n for n in (0, 2, 3, 4))
