"""Checks of a configuration on this machine; each finding comes with a remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from quicedge import native
from quicedge.cli.findings import (
    acme,
    certificates,
    client_auth,
    files,
    fleet,
    https_records,
    key_exchange,
    network,
    route_filters,
    state,
)
from quicedge.cli.findings.finding import Finding, Level
from quicedge.cli.findings.impersonation import run_as
from quicedge.cli.findings.running import running_edge
from quicedge.config.filter_validation import upstreams_in
from quicedge.config.host_port import HostPort
from quicedge.config.machine import missing_libraries
from quicedge.config.routes import upstreams_of
from quicedge.config.schema import Config
from quicedge.worker.privileges import Identity, PrivilegeError, identity_of

__all__ = ["Finding", "examine"]


def examine(
    config: Config, path: str | None = None, resolvers: Sequence[HostPort] | None = None
) -> list[Finding]:
    """Run every check that does not start the edge. `path`: the configuration file, if any.

    `resolvers`: of DNS; default: those of this machine.
    """
    identity, user = _identity(config)
    edge = running_edge(config.admin, path)
    found = [*network.listening(config, edge), *network.administration(config.admin, edge)]
    found += network.buffers()
    found += certificates.of_config(config)
    found += state.of_config(config)
    found += acme.of_config(config)
    found += client_auth.of_config(config)
    found += key_exchange.of_config(config)
    found += https_records.of_config(config, resolvers)
    found += files.of_supervisor(config)
    found += fleet.of_config(config)
    found += run_as(identity, lambda: files.of_workers(config, identity))
    found += run_as(identity, lambda: route_filters.of_workers(config))
    lacking = list(missing_libraries(config))
    found += [Finding(Level.ERROR, problem.key, problem.message) for problem in lacking]
    if not lacking:
        found += network.register(config)
    found += run_as(identity, lambda: network.origins(config))
    found += _unused(config)
    found += network.descriptors()
    found += [user, _core()]
    return found


def _core() -> Finding:
    """Whether packets pass through the compiled core."""
    if native.compiled is not None:
        return Finding(Level.OK, "core", "packets are protected by the compiled core")
    remedy = ""
    if not native.is_forced:
        remedy = "install a wheel, or install with cargo in PATH (`make core` in a checkout)"
    message = f"packets are protected in Python, at more cost: {native.why_pure}"
    return Finding(Level.OK, "core", message, remedy)


def _identity(config: Config) -> tuple[Identity | None, Finding]:
    """The identity that workers run as, and the finding about it."""
    try:
        identity = identity_of(config.user, config.group)
    except PrivilegeError as error:
        remedy = "" if os.geteuid() == 0 else "run the edge, and this check, as root"
        return None, Finding(Level.ERROR, "user", str(error), remedy)
    if identity is None and os.geteuid() == 0:
        return None, Finding(
            Level.WARNING, "user", "workers run as root and process untrusted input",
            'create a user and set user = "quicedge"',
        )  # fmt: skip
    uid = os.geteuid() if identity is None else identity.uid
    return identity, Finding(Level.OK, "user", f"workers run as user {uid}, without capabilities")


def _unused(config: Config) -> Iterator[Finding]:
    entries = [*config.filters, *(entry for route in config.routes for entry in route.filters)]
    routed = {name for route in config.routes for name in upstreams_of(route)}
    routed.update(name for entry in entries for _, name in upstreams_in(entry))
    for name in config.upstreams:
        if name not in routed:
            yield Finding(
                Level.WARNING,
                f"upstream {name}",
                "not used by any route or filter",
                "add a route or remove it",
            )
