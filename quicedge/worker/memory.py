"""The memory budget of a worker: refuse new work first, then close the largest connections."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

from quicedge.config.limits import (
    MALLOC_MMAP_THRESHOLD,
    MALLOC_TRIM_THRESHOLD,
    MEMORY_BUDGET_SHARE,
    MEMORY_SHED_ABOVE,
    MEMORY_SHED_SHARE,
    MEMORY_TAKE_BELOW,
    MEMORY_TRIM_INTERVAL,
)

log = structlog.get_logger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""

_MADV_DONTNEED = 4
"""Advice of madvise(2), the same on all architectures but Alpha."""

_STATM = Path("/proc/self/statm")
_SMAPS = Path("/proc/self/smaps")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def resident_bytes() -> int:
    """Resident memory of this process; its maximum where the current value is unknown."""
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def default_budget(workers: int) -> int:
    """The default budget in bytes of one of `workers` workers."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # missing, or "max"
            continue
    return int(total * MEMORY_BUDGET_SHARE / workers)


def tune_allocator() -> bool:
    """Have the C library keep what it gets from the system for longer; whether it does (glibc).

    By default it maps every block of 128 KB anew and gives the heap's end back at once, so each
    read of a large body is paid for with page faults. See bench/RESULTS.md for what it gains.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trimmed = mallopt(_M_TRIM_THRESHOLD, MALLOC_TRIM_THRESHOLD)
    mapped = mallopt(_M_MMAP_THRESHOLD, MALLOC_MMAP_THRESHOLD)
    return bool(trimmed and mapped)


def trim() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    glibc keeps free memory between live allocations: after a burst, a process that uses 9 MB may
    have 400 MB resident and would look as full as during the burst.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def release_files() -> None:
    """Give back the pages of programs and libraries (Linux): most of those in use at the end of the
    start were for the start alone, such as relocations, initialisers and parsers of certificates.

    They stay in the page cache, which gives them up when memory is short, and those that are used
    again come back from there. If a library is overwritten in place, they come back with its new
    content, as do pages that were never read: that is why installers replace the file instead.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    try:
        with _SMAPS.open("rb") as lines:
            mappings = list(clean_mappings(lines))
    except OSError:
        return
    for start, end in mappings:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def clean_mappings(smaps: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Where private, read-only mappings of files begin and end that hold nothing but the file.

    Others may not be given back: addresses that were relocated before their mapping became
    read-only would be lost.
    """
    mapping: list[bytes] = []
    for line in smaps:
        fields = line.split()
        if not fields[0].endswith(b":"):
            mapping = fields
        elif fields[:2] == [b"Anonymous:", b"0"] and _is_read_only_file(mapping):
            start, _, end = mapping[0].partition(b"-")
            yield int(start, 16), int(end, 16)


def _is_read_only_file(mapping: list[bytes]) -> bool:
    """Of a line of /proc/PID/smaps: addresses, permissions, offset, device, inode, path."""
    return len(mapping) >= 6 and mapping[1] in (b"r--p", b"r-xp") and mapping[4] != b"0"


class MemoryBudget:
    """Decides on the basis of periodic measurements (`check`) whether new work is accepted.

    `full` is set above the budget until usage is 10% below it: new connections and requests are
    refused. Above 110% connections must be closed, 5% of them per check. Freed memory is returned
    to the system before anything is refused.
    """

    def __init__(
        self,
        budget: int,
        measure: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = trim,
    ) -> None:
        self.budget = budget
        """Bytes."""
        self.full = False
        self._measure = measure
        self._trim = trim
        self._trimmed_at = float("-inf")

    def check(self, connections: int, now: float) -> int:
        """Measure; returns how many of `connections` must be closed."""
        used = self._measure()
        limit = MEMORY_TAKE_BELOW * self.budget if self.full else self.budget
        if used >= limit and now >= self._trimmed_at + MEMORY_TRIM_INTERVAL:
            self._trimmed_at = now
            self._trim()
            used = self._measure()
        if used > self.budget and not self.full:
            self.full = True
            log.warning("memory budget exceeded; refusing new work", used=used, budget=self.budget)
        elif self.full and used < MEMORY_TAKE_BELOW * self.budget:
            self.full = False
            log.info("memory below budget; accepting new work", used=used, budget=self.budget)
        if used > MEMORY_SHED_ABOVE * self.budget and connections:
            return max(1, int(connections * MEMORY_SHED_SHARE))
        return 0
