"""The worker's memory, held to a budget: new work is refused first, then the newest goes."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import structlog

from quicedge.config.limits import MEMORY_SHED_ABOVE, MEMORY_SHED_SHARE, MEMORY_TAKE_BELOW

log = structlog.get_logger(__name__)

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory of this process in use now; its maximum where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MemoryBudget:
    """Looks at the memory now and then (`check`) and says what may go on.

    `full` while over the budget, until it is a tenth below: new connections and requests are
    refused. Beyond a tenth over it, connections must go, one in twenty a look.
    """

    def __init__(self, budget: int | None, measure: Callable[[], int] = resident_bytes) -> None:
        self.budget = budget
        self.full = False
        self._measure = measure

    def check(self, connections: int) -> int:
        """Measure; how many of so many connections must be closed."""
        if self.budget is None:
            self.full = False
            return 0
        used = self._measure()
        if used > self.budget and not self.full:
            self.full = True
            log.warning("memory budget reached: refusing new work", used=used, budget=self.budget)
        elif self.full and used < MEMORY_TAKE_BELOW * self.budget:
            self.full = False
            log.info("memory is back below its budget", used=used, budget=self.budget)
        if used > MEMORY_SHED_ABOVE * self.budget and connections:
            return max(1, int(connections * MEMORY_SHED_SHARE))
        return 0
