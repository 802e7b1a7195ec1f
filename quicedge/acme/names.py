"""Which names a configuration wants certificates for."""

from __future__ import annotations

import re
from collections.abc import Set

from quicedge.config.routes import hosts_of
from quicedge.config.schema import Config

_NOT_PUBLIC = ("localhost", "local", "internal", "test", "example", "invalid", "onion", "home.arpa")
"""Domains in which no public issuer may issue (RFC 6761, RFC 8375, the CA/Browser Forum's baseline
requirements)."""

_NAME = re.compile(r"(?=.{4,253}\Z)(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)+(?!-)[a-z0-9-]{2,63}(?<!-)")


def is_dns_name(name: str) -> bool:
    """Whether a name, in lower case, is one of at least two labels of a certificate's alphabet."""
    return _NAME.fullmatch(name) is not None and not name.rpartition(".")[2].isdigit()


def is_public(name: str) -> bool:
    """Whether a public issuer may issue for a name."""
    return not any(name == domain or name.endswith(f".{domain}") for domain in _NOT_PUBLIC)


def on_demand_problem(config: Config, name: str) -> str | None:
    """Why a name that a client asks for cannot have a certificate; None if it can."""
    if not is_dns_name(name) or not _may_be_issued(config, name):
        return "no issuer may have a certificate for it"
    hosts = {host for route in config.routes for host in hosts_of(route)}
    if hosts.isdisjoint({name, f"*.{name.partition('.')[2]}", "*"}):
        return "no route is for it"
    return None


def _may_be_issued(config: Config, name: str) -> bool:
    acme = config.tls.acme
    own_issuer = acme is not None and (acme.directory is not None or bool(acme.issuers))
    return own_issuer or is_public(name)


def wanted(config: Config, covered: Set[str] = frozenset()) -> list[str]:
    """The names to have certificates for: those of the routes, and those that are listed.

    Without those that certificates of the operator cover (`covered`: their names), and, unless
    there is another issuer, those that public issuers refuse.
    """
    acme = config.tls.acme
    if acme is None:
        return []
    listed = [host.lower().rstrip(".") for host in acme.hosts]
    routed = [host.lower().rstrip(".") for route in config.routes for host in hosts_of(route)]
    wildcards = bool(acme.dns_command)  # otherwise their hosts are ordered on demand
    return list(
        dict.fromkeys(
            name
            for name in (*listed, *routed)
            if is_dns_name(name.removeprefix("*."))
            and (wildcards or not name.startswith("*."))
            and _may_be_issued(config, name)
            and covered.isdisjoint((name, f"*.{name.partition('.')[2]}"))
        )
    )
