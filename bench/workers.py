"""`python -m bench.workers`: scaling from one to two workers on machines with few cores.

With many cores one would just count. Here the kernel gives every worker the same share of a core (a
cgroup each), and the load and the origin what is left, so that only workers are scarce: the
requests per second of two over those of one is the figure. Needs root.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import environment, loads
from bench.proxies import Proxy, Setting, quicedge

PERIOD_US = 10_000
SHARE = 0.15
"""Share of one core per worker."""
CONNECTIONS, STREAMS, REQUESTS = 40, 2, 2000
ROUNDS = 3
CGROUPS = Path("/sys/fs/cgroup")


def _group(name: str) -> Path:
    """Create a cgroup with the share; raises OSError where that is not possible."""
    first = (CGROUPS / "cpu").is_dir()  # version 1, or hybrid
    group = CGROUPS / "cpu" / name if first else CGROUPS / name
    group.mkdir()
    quota = int(SHARE * PERIOD_US)
    if first:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    return group


@contextlib.contextmanager
def rationed(pids: list[int]) -> Iterator[None]:
    """Run each process in its own cgroup within the block."""
    groups: list[Path] = []
    home = CGROUPS / "cpu" if (CGROUPS / "cpu").is_dir() else CGROUPS
    try:
        for pid in pids:
            groups.append(_group(f"quicedge-bench-{pid}"))
            (groups[-1] / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid, group in zip(pids, groups, strict=False):
            (home / "cgroup.procs").write_text(str(pid))
            group.rmdir()


def workers_of(proxy: Proxy) -> list[int]:
    """Process IDs of the workers."""
    return [
        pid
        for pid in proxy.pids()
        if b"quicedge.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def rate(workers: int, setting: Setting) -> float:
    """Small requests per second served by this many workers."""
    with environment.serving(quicedge(workers=workers), setting) as proxy:
        pids = workers_of(proxy)
        assert len(pids) == workers
        with rationed(pids):
            outcome = loads.go(
                proxy, "requests", connections=CONNECTIONS, streams=STREAMS, total=REQUESTS
            )
    return outcome["done"] / outcome["seconds"]


def main() -> None:
    if reasons := loads.missing():
        sys.exit("bench: " + "; ".join(reasons))
    with environment.setting() as setting:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for workers, found in rates.items():
                found.append(rate(workers, setting))
    for workers, found in rates.items():
        print(
            f"workers {workers}: {statistics.median(found):.0f} requests per second "
            f"[{min(found):.0f}, {max(found):.0f}]"
        )
    print(f"two over one: {statistics.median(rates[2]) / statistics.median(rates[1]):.2f}")


if __name__ == "__main__":
    try:
        main()
    except PermissionError as error:
        sys.exit(f"cgroups cannot be made here: {error}")
