"""Who may have what: addresses, passwords, other services, and rates."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Any

from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.nginx.values import number_of
from quicedge.migrate.nginx.variables import UnsayableError, single
from quicedge.migrate.nginx.world import World

ALL = ("0.0.0.0/0", "::/0")


class NobodyError(Exception):
    """All clients are refused."""


def networks(scope: Scope, world: World) -> dict[str, list[str]] | None:
    """The settings of the filter `access`; None: everybody passes. Raises NobodyError.

    nginx takes the first rule that fits, quicedge the longest network.
    """
    rules = [
        (directive, directive.name == "allow", _network(directive, world))
        for directive in scope.all("allow", "deny")
    ]
    taken: list[tuple[Any, bool]] = []
    default = True
    for directive, allows, network in rules:
        if network is None:
            continue
        world.notebook.translated(directive)
        if network == "all":
            default = allows
            break
        if not any(_covers(other, network) for other, _ in taken):
            taken.append((network, allows))
    allow = [str(network) for network, allows in taken if allows]
    deny = [str(network) for network, allows in taken if not allows]
    if default and not deny:
        return None
    if not default and not allow:
        raise NobodyError
    found: dict[str, list[str]] = {}
    if allow:
        # Without a list everybody passes who is not denied, and with one nobody else.
        found["allow"] = [*allow, *(ALL if default else ())]
    if deny:
        found["deny"] = deny
    return found


def _network(directive: Directive, world: World) -> Any:
    text = directive.args[0]
    if text == "all":
        return "all"
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        words = f"{text} is neither an address nor a network"
        world.notebook.left_out(directive, words, visible.STATUS)
        return None


def _covers(one: Any, other: Any) -> bool:
    return bool(one.version == other.version and other.subnet_of(one))


def basic_auth(scope: Scope, world: World) -> dict[str, Any] | None:
    """The settings of the filter `basic_auth`."""
    realm = scope.last("auth_basic")
    if realm is None:
        return None
    note = world.notebook
    if realm.args[0] == "off":
        note.translated(realm)
        return None
    users = scope.last("auth_basic_user_file")
    if users is None or "$" in users.args[0] + realm.args[0]:
        note.left_out(realm, "without a file of users that is known", *visible.ANSWER)
        raise UnsayableError("the users are not known")
    words = "the charset is told as well"
    note.different(realm, words, *visible.client("www-authenticate"))
    name = world.path(users.args[0])
    words = "only bcrypt hashes are accepted: htpasswd -B"
    note.different(users, words, visible.status("", 401))
    world.supply(f"{name}: give all users bcrypt hashes (htpasswd -B)")
    found = {"htpasswd": name, "realm": realm.args[0].encode("ascii", "replace").decode()}
    return {**found, "forward_credentials": True}


# --- rates ----------------------------------------------------------------------------------------

_RATE = re.compile(r"rate=(\d+)r/([sm])")


def request_rates(scope: Scope, world: World) -> list[dict[str, Any]]:
    """The `requests` of a route."""
    found = []
    status = scope.last("limit_req_status")
    if status is not None:
        _status(status, world)
    for directive in scope.all("limit_req"):
        options = dict(arg.partition("=")[::2] for arg in directive.args)
        zone = world.request_zones.get(options.get("zone", ""))
        if zone is None:
            world.notebook.left_out(directive, "the zone is not known", visible.STATUS)
            continue
        by = _key(zone.args[0])
        rate = _RATE.search(" ".join(zone.args))
        if by is None or rate is None:
            words = f"requests are counted by address or header, not by {zone.args[0]}"
            world.notebook.left_out(directive, words, visible.status(503), visible.status(429))
            world.notebook.left_out(zone, words)
            continue
        burst = number_of(directive, options.get("burst", "0"))
        entry = {"rate": _rate(int(rate[1]), 60 if rate[2] == "m" else 1, burst)}
        if by != "address":
            entry["by"] = by
        if entry not in found:
            found.append(entry)
        words = "answered 429 with retry-after, never delayed; counted per route and worker"
        effects = (visible.status("", 429), *visible.client("retry-after"))
        world.notebook.different(directive, words, *effects)
        world.notebook.translated(zone, f"requests of routes: {entry['rate']}")
    return found


def _status(status: Directive, world: World) -> None:
    if status.args[0] == "429":
        world.notebook.translated(status)
    else:
        words = "requests beyond a rate are answered 429"
        world.notebook.different(status, words, visible.status(status.args[0], 429))


def _rate(count: int, period: int, burst: int) -> str:
    """A rate whose count is the burst: `20 per 2 seconds` are ten per second and twenty at once."""
    # nginx takes the burst and one more. Where these do not take whole seconds, it is the burst
    # alone or the next count that does.
    step = count // math.gcd(count, period)
    wanted = burst + 1
    if wanted % step:
        wanted = burst if burst and burst % step == 0 else -(-wanted // step) * step
    time = wanted * period // count
    if time % 60 == 0:
        return _text(wanted, time // 60, "minute")
    return _text(wanted, time, "second")


def _text(count: int, periods: int, unit: str) -> str:
    return f"{count}/{unit}" if periods == 1 else f"{count} per {periods} {unit}s"


def _key(text: str) -> str | None:
    variable = single(text)
    if variable in ("binary_remote_addr", "remote_addr"):
        return "address"
    if variable is not None and variable.startswith("http_"):
        return f"header:{variable.removeprefix('http_').replace('_', '-')}"
    return None


def connection_limits(scope: Scope, world: World) -> None:
    """`limit_conn`, which quicedge has for all routes alike."""
    for directive in scope.all("limit_conn"):
        zone = world.connection_zones.get(directive.args[0])
        is_for_all = scope.blocks and directive in scope.blocks[0]
        if zone is None or _key(zone.args[0]) != "address" or not is_for_all:
            words = "connections are limited per address, for all routes: [limits]"
            world.notebook.left_out(directive, words, visible.status(503))
            if zone is not None:
                world.notebook.left_out(zone, words)
            continue
        limits = world.document.section("limits").keys
        limits["max_connections_per_address"] = max(number_of(directive, directive.args[1]), 1)
        words = "counts connections, not requests, per worker"
        world.notebook.different(directive, words, visible.status(503))
        world.notebook.translated(zone)
