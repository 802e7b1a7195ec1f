"""Three network namespaces in a row, client, router, server, and what is left of dead ones."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from interop.runner import addresses

PREFIX = "qeinterop"


class TopologyError(Exception):
    """The namespaces could not be made; the message says which command refused and why."""


@dataclass(frozen=True)
class Topology:
    """The names of the namespaces."""

    client: str
    router: str
    server: str


def run_ip(*words: str) -> str:
    """Run `ip` with `words`; raises TopologyError with what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TopologyError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    """Make the namespaces and the two wires between them; removes them however it is left."""
    remove_stale()
    names = Topology(*(f"{PREFIX}-{os.getpid()}-{part}" for part in ("client", "router", "server")))
    try:
        for name in (names.client, names.router, names.server):
            run_ip("netns", "add", name)
            run_ip("-n", name, "link", "set", "lo", "up")
        _wire(names.client, names.router, addresses.LEFT_INTERFACE)
        _wire(names.server, names.router, addresses.RIGHT_INTERFACE)
        _endpoint(
            names.client,
            addresses.CLIENT_MAC,
            (addresses.CLIENT_V4, addresses.CLIENT_V6),
            (addresses.ROUTER_LEFT_V4, addresses.ROUTER_LEFT_V6),
            addresses.LEFT_MAC,
        )
        _endpoint(
            names.server,
            addresses.SERVER_MAC,
            (addresses.SERVER_V4, addresses.SERVER_V6),
            (addresses.ROUTER_RIGHT_V4, addresses.ROUTER_RIGHT_V6),
            addresses.RIGHT_MAC,
        )
        for side, mac, own in (
            (
                addresses.LEFT_INTERFACE,
                addresses.LEFT_MAC,
                (addresses.ROUTER_LEFT_V4, addresses.ROUTER_LEFT_V6),
            ),
            (
                addresses.RIGHT_INTERFACE,
                addresses.RIGHT_MAC,
                (addresses.ROUTER_RIGHT_V4, addresses.ROUTER_RIGHT_V6),
            ),
        ):
            _interface(names.router, side, mac, own)
        yield names
    finally:
        for name in (names.client, names.router, names.server):
            with contextlib.suppress(TopologyError):
                run_ip("netns", "del", name)


def remove_stale() -> list[str]:
    """Delete namespaces of ours whose process is gone; returns their names."""
    stale = []
    for line in run_ip("netns", "list").splitlines():
        match = re.match(rf"({PREFIX}-(\d+)-\w+)", line)
        if match and not os.path.exists(f"/proc/{match[2]}"):
            with contextlib.suppress(TopologyError):
                run_ip("netns", "del", match[1])
                stale.append(match[1])
    return stale


def _wire(namespace: str, router: str, side: str) -> None:
    run_ip(
        *("link", "add", addresses.ENDPOINT_INTERFACE, "netns", namespace, "type", "veth"),
        *("peer", "name", side, "netns", router),
    )


def _interface(namespace: str, name: str, mac: bytes, own: tuple[str, str]) -> None:
    v4, v6 = own
    run_ip("-n", namespace, "link", "set", name, "address", mac.hex(":"), "mtu", str(addresses.MTU))
    # No offload, as in the interop runner's containers: the capture sees what the wire would.
    subprocess.run(
        [
            *("ip", "netns", "exec", namespace, "ethtool", "-K", name),
            *("tx", "off", "tso", "off", "gso", "off", "gro", "off"),
        ],
        check=True,
        capture_output=True,
    )
    run_ip("-n", namespace, "addr", "add", f"{v4}/24", "dev", name)
    run_ip("-n", namespace, "addr", "add", f"{v6}/64", "dev", name, "nodad")
    run_ip("-n", namespace, "link", "set", name, "up")


def _endpoint(
    namespace: str, mac: bytes, own: tuple[str, str], gateway: tuple[str, str], gateway_mac: bytes
) -> None:
    interface = addresses.ENDPOINT_INTERFACE
    _interface(namespace, interface, mac, own)
    for family, address in zip(("-4", "-6"), gateway, strict=True):
        run_ip(
            *("-n", namespace, family, "neigh", "replace", address, "lladdr", gateway_mac.hex(":")),
            *("dev", interface, "nud", "permanent"),
        )
        # The source is named so that an address added later is never chosen by itself.
        source = own[0] if family == "-4" else own[1]
        run_ip(
            *("-n", namespace, family, "route", "add", "default", "via", address),
            *("dev", interface, "src", source),
        )


@contextlib.contextmanager
def extra_addresses(names: Topology) -> Iterator[None]:
    """The second client and second server of the crosstraffic measurement, on the same wires."""
    added = (
        (names.client, addresses.CROSS_RECEIVER_V4),
        (names.server, addresses.CROSS_SENDER_V4),
    )
    for namespace, address in added:
        run_ip("-n", namespace, "addr", "add", f"{address}/24", "dev", addresses.ENDPOINT_INTERFACE)
    try:
        yield
    finally:
        for namespace, address in added:
            with contextlib.suppress(TopologyError):
                run_ip(
                    *("-n", namespace, "addr", "del", f"{address}/24"),
                    *("dev", addresses.ENDPOINT_INTERFACE),
                )
