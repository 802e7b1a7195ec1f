"""`make soak ARGS=upgrade`: reloads, upgrades and deaths of processes under clients of every kind.

The verdict: no exchange is lost and no new connection refused, whatever happens to supervisors; a
worker that is killed loses its own connections alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.soak import LOSS, Program, Verdict, program
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.peers import answers, free_port, wait_until

DRAIN, UPGRADE_DRAIN = 3.0, 15.0
"""Seconds; a large response to a slow client on a lossy path takes a few."""
REBIND_SECONDS = 8.0
STALLED = DRAIN
"""Seconds for which clients may stand still before what they lose says nothing of the edge."""

ONE_ADDRESS = """
[limits]
max_connections_per_address = 20000
max_connections_per_prefix = 20000
"""

STEPS = (
    "reload", "upgrade", "reload", "workers", "reload", "upgrade", "reload", "kill supervisor",
    "reload", "upgrade",
)  # fmt: skip
"""Five reloads, three upgrades, one other number of workers, one supervisor killed."""


@contextmanager
def origin() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.upgradeorigin", str(port)], cwd=REPOSITORY
    )
    try:
        wait_until(lambda: answers(port), "the origin")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def quicedge(running: RunningEdge, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quicedge", command, "--config",
         str(running.directory / "quicedge.toml")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def generations(running: RunningEdge) -> set[int]:
    return {worker["slot"] // 64 for worker in running.admin("/api/v1/status")["workers"]}


def is_ready(running: RunningEdge) -> bool:
    """Whether all workers serve, whoever their supervisor is by now."""
    try:
        running.admin("/readyz")
    except OSError:
        return False
    except ValueError:
        return True  # not JSON
    return True


def change(running: RunningEdge, *choices: str) -> None:
    """Write the next of the choices in place of the one that is in the file."""
    path = running.directory / "quicedge.toml"
    text = path.read_text()
    at = next(index for index, choice in enumerate(choices) if choice in text)
    path.write_text(text.replace(choices[at], choices[(at + 1) % len(choices)]))


def step(running: RunningEdge, verdict: Verdict, name: str, load: Program) -> None:
    """Do one thing to the edge, and wait until workers that it has replaced are gone."""
    started = time.monotonic()
    if name in ("upgrade", "workers"):
        load.tell(name)
    if name == "kill supervisor":
        os.kill(int(running.admin("/api/v1/status")["pid"]), signal.SIGKILL)
        time.sleep(1.0)
        running.start()
    else:
        if name == "workers":
            change(running, "workers = 2", "workers = 3")
        elif name == "reload":
            change(running, "max_uri = 4000", "max_uri = 5000")
        done = quicedge(running, "upgrade" if name == "upgrade" else "reload")
        verdict.expect(done.returncode == 0, f"{name}: {done.stderr}")
    served = time.monotonic() - started
    wait_until(lambda: len(generations(running)) == 1, "the end of the workers before", 120)
    time.sleep(1.0)  # clients hear of it
    verdict.note(f"{name} (s, until all is over)", f"{served:.1f} {time.monotonic() - started:.1f}")


def kill_a_worker(running: RunningEdge, verdict: Verdict, clients: int) -> None:
    """Only the connections of the worker that is killed are lost."""
    with program("bench.soakload", "idle", running.port, clients, 1.0) as idlers:
        rows = running.admin(f"/api/v1/connections?limit={clients}")["connections"]
        doomed = rows[0]["worker"]
        own = sum(row["worker"] == doomed for row in rows)
        workers = {w["slot"]: w["pid"] for w in running.admin("/api/v1/status")["workers"]}
        os.kill(workers[doomed], signal.SIGKILL)
        wait_until(lambda: is_ready(running), "another worker", 60)
        failed = sum(idlers.finish()["failed"].values())
    verdict.note("worker killed: its connections, lost", f"{own}, {failed}")
    verdict.expect(0 < own < clients, "all clients had one worker")
    verdict.expect(failed == own, "connections of other workers were lost")


def run_upgrades(
    directory: Path,
    clients: int,
    steps: tuple[str, ...] = STEPS,
    doomed: int = 60,
    upgrade_drain: float = UPGRADE_DRAIN,
) -> Verdict:
    verdict = Verdict()
    options = (
        f'workers = 2\ndrain_timeout = "{DRAIN:g}s"\nupgrade_drain = "{upgrade_drain:g}s"\n'
        'state_directory = "state"'
    )
    with ExitStack() as stack:
        url = stack.enter_context(origin())
        running = stack.enter_context(
            edge(directory, url, extra=ONE_ADDRESS + "max_uri = 4000", options=options,
                 drain_timeout=None, ends_itself=True)
        )  # fmt: skip
        with (
            program("bench.lossy", running.port, LOSS, REBIND_SECONDS) as lossy,
            program(
                "bench.upgradeload", lossy.ready["port"], running.port, clients, upgrade_drain
            ) as load,
        ):
            verdict.note("clients", load.ready["ready"])
            for name in steps:
                step(running, verdict, name, load)
            found = load.finish()
            way = lossy.finish()
        report(verdict, found, way)
        if doomed:
            kill_a_worker(running, verdict, doomed)
        verdict.expect(quicedge(running, "stop").returncode == 0, "it did not stop")
    return verdict


def report(verdict: Verdict, found: dict[str, Any], way: dict[str, Any]) -> None:
    verdict.note("connections", found["connections"])
    for name in ("done", "moved", "lost", "refused"):
        verdict.note(name, json.dumps(found[name]))
    verdict.note("datagrams lost, rebindings", f"{way['lost']}, {way['rebindings']}")
    verdict.note("all clients stood still for (s)", f"{found['stalled']:.1f}")
    busy = "" if found["stalled"] < STALLED else "; the machine is too busy to say why"
    verdict.expect(not found["lost"], f"exchanges were lost: {found['lost']}{busy}")
    verdict.expect(not found["refused"], f"connections were refused: {found['refused']}")
    for kind, count in found["done"].items():
        verdict.expect(count > 0, f"{kind}: nothing was done")
