"""`make soak`: many connections for a while, then attacks, with every byte and every leak counted.

The edge runs one worker. Idle connections come to it straight; active ones by a NAT that rebinds
and loses one datagram in a hundred each way. Then each flood runs beside a few honest clients. The
verdict is the exit code; `SOAK_SECONDS` (300) is how long the first part takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.attacks import ALL_KINDS, attacks, configuration
from bench.fleet import soak_fleet
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.peers import answers, free_port, wait_until

LOSS = 0.01
REBIND_SECONDS = 20.0

ONE_ADDRESS = """
[limits]
max_connections_per_address = 20000
max_connections_per_prefix = 20000
"""
"""All clients of the soak share one address, and are more than the default lets an address have."""

PING_SECONDS = 20.0
"""Seconds between PINGs of idle clients: the edge closes silent connections after a minute."""

FLEET_CLIENTS = {"ecmp": 300, "balancer": 300, "nat": 100}
"""Clients of the three hosts, by what stands before them; the NAT is one thread that relays every
datagram."""

FLEET_SECONDS = 20.0
"""How long each phase takes."""

QUIET_CLIENTS, QUIET_INTERVAL = 10, 0.1
FLOODS = {"initials": 1000, "garbage": 2000, "resets": 500, "slow": 100}
"""Datagrams, streams or connections per second of each flood."""

GROWTH = 0.15
"""Share by which memory may grow between the middle of the soak and its end."""

GROWTH_FLOOR = 16 << 20
"""Bytes of growth that count as noise."""

SLOWDOWN = 5.0
"""Allowed p99 of small requests during a flood, as a multiple of the quiet p99."""

SLOWDOWN_FLOOR = 0.05
"""Seconds of p99 below which only the scheduler of a shared machine is measured."""


class Program:
    """A helper process that reports when it is ready and, at the end, its results."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.ready = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()}")
        return dict(json.loads(line))

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()


@contextmanager
def program(module: str, *arguments: object) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Program(process)
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def origin() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.origin", str(port)], cwd=REPOSITORY)
    try:
        wait_until(lambda: answers(port), "the origin")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@dataclass
class Held:
    """Resources held by the worker."""

    resident: int
    descriptors: int
    connections: int


def held(running: RunningEdge) -> Held:
    (worker,) = running.admin("/api/v1/status")["workers"]
    pid = worker["pid"]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGESIZE"),
        len(os.listdir(f"/proc/{pid}/fd")),
        worker["stats"]["connections"],
    )


def is_at_peace(running: RunningEdge) -> bool:
    return held(running).connections == 0


class Verdict:
    """Collects and prints the findings."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.figures: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        self.figures[name] = value
        print(f"{name:<34} {value}", flush=True)

    def expect(self, fine: bool, what: str) -> None:
        if not fine:
            self.wrong.append(what)
            print(f"WRONG: {what}", flush=True)


def soak(
    running: RunningEdge,
    verdict: Verdict,
    seconds: float,
    *,
    idle: int,
    active: int,
    interval: float,
    loss: float = LOSS,
    rebind: float = REBIND_SECONDS,
    ping: float = PING_SECONDS,
) -> None:
    """First phase: many connections, churn, rebinding and loss."""
    before = held(running)
    with (
        program("bench.lossy", running.port, loss, rebind) as lossy,
        program("bench.soakload", "idle", running.port, idle, ping) as idlers,
        program("bench.soakload", "active", lossy.ready["port"], active, interval) as workers,
    ):
        verdict.note("idle connections", idlers.ready["ready"])
        time.sleep(seconds / 2)
        middle = held(running)
        time.sleep(seconds / 2)
        end = held(running)
        worked = workers.finish()
        idled = idlers.finish()
        way = lossy.finish()
        verdict.note("connections at the end", end.connections)
        for name in ("connections", "at_once", "small", "large", "failed"):
            verdict.note(f"active: {name}", worked[name])
        for name in ("p50", "p99", "handshake_p99"):
            verdict.note(f"active: {name} (ms)", milliseconds(worked[name]))
        verdict.note("datagrams lost, rebindings", f"{way['lost']}, {way['rebindings']}")
        verdict.note(
            "memory, middle and end (MB)", f"{middle.resident / 1e6:.0f} {end.resident / 1e6:.0f}"
        )
        verdict.expect(not worked["failed"] and worked["small"] > 0, "an active request failed")
        verdict.expect(not idled["failed"], f"idle connections did not live: {idled['failed']}")
        verdict.expect(end.connections >= idle, "connections were lost")
        growth = end.resident - middle.resident
        verdict.expect(growth < max(GROWTH * middle.resident, GROWTH_FLOOR), "memory grows")
    peace(running, verdict, before)


def peace(running: RunningEdge, verdict: Verdict, before: Held) -> None:
    """Check that all resources are released after the clients have left."""
    try:
        wait_until(lambda: is_at_peace(running), "no connection", 90)
    except AssertionError:
        verdict.expect(False, f"{held(running).connections} connections leaked")
    # Connections to the origin are pooled; they are few and bounded.
    wait_until(lambda: held(running).descriptors <= before.descriptors, "descriptors", 90)


def attack(running: RunningEdge, verdict: Verdict, seconds: float) -> None:
    """Second phase: floods while honest clients are served."""
    quiet = honest(running, seconds)
    verdict.note("quiet: p99 (ms)", milliseconds(quiet["p99"]))
    verdict.expect(not quiet["failed"], f"honest requests failed: {quiet['failed']}")
    before = held(running)
    for kind, rate in FLOODS.items():
        with program("bench.floods", kind, running.port, rate) as flood:
            during = honest(running, seconds)
            flooded = held(running)
            sent = flood.finish()["sent"]
        verdict.note(f"{kind}: sent", sent)
        verdict.note(f"{kind}: honest p99 (ms)", milliseconds(during["p99"]))
        verdict.note(f"{kind}: honest requests", during["small"] + during["large"])
        verdict.note(
            f"{kind}: memory gained (MB)", f"{(flooded.resident - before.resident) / 1e6:.1f}"
        )
        verdict.expect(not during["failed"], f"{kind}: honest requests failed: {during['failed']}")
        slow = max(SLOWDOWN * (quiet["p99"] or 0), SLOWDOWN_FLOOR)
        verdict.expect((during["p99"] or 1e9) < slow, f"{kind}: honest requests became slow")
        verdict.expect(sent > 0, f"{kind}: nothing was sent")
        wait_until(lambda: is_at_peace(running), "the end of a flood", 90)


def honest(running: RunningEdge, seconds: float) -> dict[str, Any]:
    """Latencies and failures of a few honest clients."""
    arguments = ("active", running.port, QUIET_CLIENTS, QUIET_INTERVAL)
    with program("bench.soakload", *arguments) as clients:
        time.sleep(seconds)
        return clients.finish()


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def run(
    directory: Path, seconds: float, idle: int, active: int, interval: float, flood_seconds: float
) -> Verdict:
    verdict = Verdict()
    with ExitStack() as stack:
        url = stack.enter_context(origin())
        running = stack.enter_context(edge(directory, url, extra=ONE_ADDRESS))
        wait_until(lambda: held(running).connections == 0, "the edge")
        if seconds:
            soak(running, verdict, seconds, idle=idle, active=active, interval=interval)
        if flood_seconds:
            attack(running, verdict, flood_seconds)
    return verdict


def run_attacks(directory: Path, kinds: list[str], seconds: float) -> Verdict:
    """Resource attacks alone (`bench.attacks`)."""
    verdict = Verdict()
    extra = configuration(directory)
    with origin() as url, edge(directory, url, extra=extra) as running:
        attacks(running, verdict, kinds, seconds)
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=("all", "attacks", "fleet", "upgrade"), default="all"
    )
    parser.add_argument("--clients", type=int, default=500, help="of the part `upgrade`")
    parser.add_argument("--kind", action="append", choices=ALL_KINDS, help="of attacks")
    parser.add_argument("--seconds", type=float, default=os.environ.get("SOAK_SECONDS", 300))
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between requests")
    parser.add_argument("--flood-seconds", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if options.part == "attacks":
            kinds = options.kind or list(ALL_KINDS)
            verdict = run_attacks(Path(directory), kinds, options.flood_seconds)
            sys.exit("\n".join(verdict.wrong) or 0)
        if options.part == "fleet":
            reports = [
                soak_fleet(Path(directory), scene, clients, FLEET_SECONDS)
                for scene, clients in FLEET_CLIENTS.items()
            ]
            sys.exit("\n".join(line for report in reports for line in report.wrong) or 0)
        if options.part == "upgrade":
            from bench.upgrades import run_upgrades

            verdict = run_upgrades(Path(directory), options.clients)
            sys.exit("\n".join(verdict.wrong) or 0)
        verdict = run(
            Path(directory), options.seconds, options.idle, options.active, options.interval,
            options.flood_seconds,
        )  # fmt: skip
    sys.exit("\n".join(verdict.wrong) or 0)


if __name__ == "__main__":
    main()
