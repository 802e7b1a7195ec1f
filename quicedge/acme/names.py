"""Which names a configuration wants certificates for."""

from __future__ import annotations

import re
from collections.abc import Collection

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


def wanted(config: Config, covered: Collection[str] = ()) -> list[str]:
    """The names to have certificates for: those of the routes, and those that are listed.

    Without those that certificates of the operator cover (`covered`: their names), and, unless
    there is another issuer, those that public issuers refuse.
    """
    acme = config.tls.acme
    if acme is None:
        return []
    listed = [host.lower().rstrip(".") for host in acme.hosts]
    routed = [host.lower().rstrip(".") for route in config.routes for host in hosts_of(route)]
    own_issuer = acme.directory is not None or bool(acme.issuers)
    return list(
        dict.fromkeys(
            name
            for name in (*listed, *routed)
            if is_dns_name(name.removeprefix("*.")) and (own_issuer or is_public(name))
        )
    )
