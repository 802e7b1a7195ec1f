"""Resource attacks by one address, beside honest clients: `make soak ARGS=attacks`.

For each kind: the honest p99 beside the quiet one, honest requests that failed, memory gained per
byte that the attacker sent, CPU per attacking byte beside that of a plain GET, and whether all that
it held is let go within a minute. Bars as in docs/security.md.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attackers import KINDS
from tests.support.peers import wait_until

if TYPE_CHECKING:
    from bench.soak import Verdict
    from tests.support.edge import RunningEdge

ALL_KINDS = (*KINDS, "initial_pieces")

SECONDS = 20.0
SLOWDOWN = 5.0
"""Honest p99 during an attack, in quiet ones."""

SLOWDOWN_FLOOR = 0.05
"""Seconds of p99 below which the scheduler of a shared machine is measured."""

MEMORY_PER_BYTE = 16
MEMORY_MOST = 64 << 20
CPU_PER_BYTE = 5.0
"""CPU per attacking byte, in that of a byte of a plain GET."""

RELEASE_SECONDS = 60.0
NOISE = 4 << 20
"""Bytes of resident memory that come and go anyway."""

FILES = """
[upstreams.files]
root = "{root}"

[[routes]]
host = "*"
path = "/files/"
upstream = "files"
"""


def configuration(directory: Path) -> str:
    """What the edge needs beside the origin: a directory with a large file."""
    root = directory / "www"
    (root / "files").mkdir(parents=True)
    (root / "files" / "large").write_bytes(bytes(2_000_000))
    return FILES.format(root=root)


@dataclass
class Usage:
    """Of one worker: CPU seconds, resident bytes, bytes received."""

    cpu: float
    resident: int
    received: int


def usage(running: RunningEdge) -> Usage:
    (worker,) = running.admin("/api/v1/status")["workers"]
    pid = worker["pid"]
    ticks = Path(f"/proc/{pid}/schedstat").read_text().split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(
        int(ticks[0]) / 1e9, pages * os.sysconf("SC_PAGESIZE"), worker["stats"]["bytes_received"]
    )


def attacks(running: RunningEdge, verdict: Verdict, kinds: list[str], seconds: float) -> None:
    """One kind after the other, on one edge."""
    from bench.soak import honest, is_at_peace, milliseconds, program

    honest(running, 3.0)
    before = usage(running)
    quiet = honest(running, seconds)
    after = usage(running)
    verdict.note("quiet: p99 (ms)", milliseconds(quiet["p99"]))
    per_byte = (after.cpu - before.cpu) / (after.received - before.received)
    per_second = (after.cpu - before.cpu) / seconds
    verdict.note("quiet: CPU per byte received (us)", f"{per_byte * 1e6:.2f}")
    for kind in kinds:
        wait_until(lambda: is_at_peace(running), "the end of the last one", 120)
        start = usage(running)
        with program("bench.attackers", kind, running.port) as attacker:
            during = honest(running, seconds)
            end = usage(running)
            sent = attacker.finish()["sent"]
        stopped = time.monotonic()
        _judge(verdict, kind, quiet, during, sent)
        gained = max(end.resident - start.resident - NOISE, 0)
        verdict.note(f"{kind}: memory gained (MB)", f"{gained / 1e6:.1f}")
        most = min(MEMORY_PER_BYTE * sent, MEMORY_MOST)
        verdict.expect(gained <= most, f"{kind}: {gained / max(sent, 1):.0f} bytes held per byte")
        cpu = (end.cpu - start.cpu - per_second * seconds) / max(sent, 1)
        verdict.note(f"{kind}: CPU per byte, of a GET's", f"{cpu / per_byte:.2f}")
        verdict.expect(cpu <= CPU_PER_BYTE * per_byte, f"{kind}: costs too much CPU")
        wait_until(lambda: is_at_peace(running), "the attacker's connections", 120)
        verdict.note(f"{kind}: released after (s)", f"{time.monotonic() - stopped:.0f}")
        verdict.expect(
            time.monotonic() - stopped <= RELEASE_SECONDS, f"{kind}: not released in a minute"
        )


def _judge(
    verdict: Verdict, kind: str, quiet: dict[str, Any], during: dict[str, Any], sent: int
) -> None:
    from bench.soak import milliseconds

    verdict.note(f"{kind}: sent (KB)", f"{sent / 1000:.0f}")
    verdict.note(f"{kind}: honest requests", during["small"] + during["large"])
    verdict.note(f"{kind}: honest p99 (ms)", milliseconds(during["p99"]))
    slow = max(SLOWDOWN * (quiet["p99"] or 0), SLOWDOWN_FLOOR)
    verdict.expect(sent > 0, f"{kind}: nothing was sent")
    verdict.expect(not during["failed"], f"{kind}: honest requests failed: {during['failed']}")
    verdict.expect((during["p99"] or 1e9) < slow, f"{kind}: honest requests became slow")
