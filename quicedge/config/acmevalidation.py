"""Semantic validation of `[tls.acme]`, from the file alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from quicedge.config.hostnames import host_problem
from quicedge.config.listeners import listeners
from quicedge.config.problems import Problem
from quicedge.config.rates import parse_rate
from quicedge.config.routes import hosts_of
from quicedge.config.schema import Acme, Config

_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")


def acme_problems(config: Config) -> Iterator[Problem]:
    """Yield every contradiction of the section."""
    acme = config.tls.acme
    if acme is None:
        return
    if not acme.agree_to_terms:
        yield Problem(
            "tls.acme.agree_to_terms",
            "is required: issuers deliver only to whom has accepted their terms of service "
            "(Let's Encrypt's are at https://letsencrypt.org/repository/)",
        )
    if acme.email is not None and not _EMAIL.fullmatch(acme.email):
        yield Problem("tls.acme.email", f"{acme.email!r} is not an address such as ops@example.com")
    yield from _names(acme, config)
    yield from _issuers(acme)
    yield from _challenges(acme, config)
    if acme.storage is not None and "://" in acme.storage:
        yield from _storage(acme.storage)
    if acme.on_demand is not None:
        if not re.match(r"https?://[^/]", acme.on_demand.ask):
            yield Problem(
                "tls.acme.on_demand.ask", f"{acme.on_demand.ask!r} is not http://host/path"
            )
        try:
            parse_rate(acme.on_demand.rate)
        except ValueError as error:
            yield Problem("tls.acme.on_demand.rate", str(error))


def _names(acme: Acme, config: Config) -> Iterator[Problem]:
    for index, host in enumerate(acme.hosts):
        where = f"tls.acme.hosts[{index}]"
        problem = host_problem(host.removeprefix("*."))
        if problem is not None:
            yield Problem(where, f"{host!r} {problem}")
        elif host.startswith("*.") and not acme.dns_command:
            yield Problem(where, f"{host!r} is a wildcard, which requires dns_command (DNS-01)")
    if acme.on_demand is not None:
        return
    routed = [
        (index, host) for index, route in enumerate(config.routes) for host in hosts_of(route)
    ]
    for index, host in routed:
        if host.startswith("*.") and not acme.dns_command:
            yield Problem(
                f"routes[{index}].host",
                f"{host!r} is a wildcard: tls.acme requires dns_command (DNS-01) "
                "or on_demand for it",
            )
    if not acme.hosts and all(host == "*" for _, host in routed):
        yield Problem(
            "tls.acme", "no host to have a certificate for: name one in a route, or in hosts"
        )


def _issuers(acme: Acme) -> Iterator[Problem]:
    if acme.staging and (acme.directory is not None or acme.issuers):
        yield Problem("tls.acme.staging", "has no effect with directory or issuers")
    if acme.issuers:
        for key in ("directory", "ca", "eab_key_id", "eab_hmac_key_file"):
            if getattr(acme, key) is not None:
                yield Problem(f"tls.acme.{key}", "has no effect with issuers; set it there")
    elif acme.ca is not None and acme.directory is None:
        yield Problem("tls.acme.ca", "has no effect without directory")
    seen: set[str] = set()
    for index, item in enumerate(acme.issuers):
        where = f"tls.acme.issuers[{index}]"
        if item.directory in seen:
            yield Problem(f"{where}.directory", f"{item.directory} is listed twice")
        seen.add(item.directory)
        yield from _issuer(where, item.directory, item.eab_key_id, item.eab_hmac_key_file)
    if acme.directory is not None or acme.eab_key_id or acme.eab_hmac_key_file:
        yield from _issuer("tls.acme", acme.directory, acme.eab_key_id, acme.eab_hmac_key_file)


def _issuer(
    where: str, directory: str | None, key_id: str | None, key_file: str | None
) -> Iterator[Problem]:
    if directory is not None and not directory.startswith("https://"):
        yield Problem(f"{where}.directory", f"{directory!r} is not https://host/path")
    if (key_id is None) != (key_file is None):
        missing = "eab_key_id" if key_id is None else "eab_hmac_key_file"
        yield Problem(f"{where}.{missing}", "is required: both of eab_* or none")


def _challenges(acme: Acme, config: Config) -> Iterator[Problem]:
    if acme.dns_command:
        return
    if not acme.challenges:
        yield Problem("tls.acme.challenges", "must not be empty without dns_command")
    if not any(item.tcp_protocols for item in listeners(config)):
        yield Problem(
            "tls.acme",
            "no address speaks h2 or http/1.1: issuers have no way to reach the edge but "
            "dns_command (DNS-01)",
        )
    elif acme.challenges == ["http-01"] and config.redirect_http is False:
        yield Problem("tls.acme.challenges", "http-01 requires redirect_http (port 80)")


def _storage(url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        yield Problem("tls.acme.storage", "is neither a directory nor redis://host:port/NUMBER")
