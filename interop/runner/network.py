"""Programs of the harness inside the namespaces: the link, the probe, the competing traffic."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from interop.runner import addresses
from interop.runner.endpoint import POLL, Endpoint, wait_any
from interop.runner.topology import Topology, TopologyError, extra_addresses

CHECKOUT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT = 10.0
SERVER_START_TIMEOUT = 10.0


def _inside(namespace: str, module: str, *arguments: str) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace),
        *(sys.executable, "-m", f"interop.runner.{module}", *arguments),
    ]


def _environment() -> dict[str, str]:
    path = filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH")))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def wait_for_server(names: Topology, host: str, server: Endpoint) -> str | None:
    """None once the server has answered an unknown version, or why it did not."""
    arguments = host, str(addresses.PORT), str(SERVER_START_TIMEOUT)
    probe = subprocess.Popen(
        _inside(names.router, "probe", *arguments),
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert probe.stderr is not None
    try:
        while probe.poll() is None:
            if wait_any([server], POLL) is not None:
                return "the server exited at once"
        return (probe.stderr.read().strip() or "the probe failed") if probe.returncode else None
    finally:
        probe.kill()
        probe.wait()
        probe.stderr.close()


@contextlib.contextmanager
def link(names: Topology, scenario: str, directory: Path) -> Iterator[None]:
    """The link between the two sides; captures go to left.pcap and right.pcap.

    Raises TopologyError when it does not come up.
    """
    left, right = directory / "left.pcap", directory / "right.pcap"
    with (directory / "link.txt").open("wb") as log:
        process = subprocess.Popen(
            _inside(names.router, "forwarder", scenario, str(left), str(right)),
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
            if not readable or not process.stdout.readline():
                raise TopologyError(f"the link did not come up, see {log.name}")
            yield
        finally:
            process.stdin.close()
            try:
                process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


@contextlib.contextmanager
def cross_traffic(names: Topology) -> Iterator[None]:
    """A TCP connection from the server's side to the client's, under CUBIC."""
    processes: list[subprocess.Popen[bytes]] = []
    with extra_addresses(names):
        try:
            for command in (
                _inside(names.client, "bulk_tcp", "receive", addresses.CROSS_RECEIVER_V4),
                _inside(
                    *(names.server, "bulk_tcp", "send"),
                    *(addresses.CROSS_SENDER_V4, addresses.CROSS_RECEIVER_V4),
                ),
            ):
                processes.append(subprocess.Popen(command, env=_environment()))
            yield
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
