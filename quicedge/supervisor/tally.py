"""Keeps what workers that have ended had counted, over the end of this supervisor too.

Workers keep a copy for the supervisor that comes after this one, whether that was asked for or
not: they are who it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from quicedge.config.countlimits import TALLY_DELAY
from quicedge.telemetry.series import SeriesNames
from quicedge.telemetry.stats import WorkerStats
from quicedge.telemetry.totals import Totals

log = structlog.get_logger("quicedge.supervisor")


class Tally:
    """`spread` gives a copy to all workers."""

    def __init__(self, spread: Callable[[bytes], Awaitable[None]]) -> None:
        self.totals = Totals()
        self._spread = spread
        self._spreading: asyncio.Task[None] | None = None

    def worker_ended(self, stats: WorkerStats) -> None:
        """A worker has ended; `stats`: what it counted last."""
        self.totals = self.totals.with_worker(stats)
        self._spread_soon()

    def inherit(self, copies: Iterable[bytes]) -> None:
        """Go on from what a supervisor before this one has left with its workers."""
        found = [totals for totals in map(_decoded, copies) if totals is not None]
        if not found:
            return
        latest = max(found, key=lambda totals: totals.workers)
        try:
            self.totals = latest.with_all(self.totals)
        except (TypeError, ValueError) as error:
            log.warning("counters begin at zero", reason=str(error))
            return
        self._spread_soon()

    def keep(self, names: SeriesNames) -> None:
        """Forget what the configuration has no more."""
        self.totals = self.totals.of_series(names)

    def _spread_soon(self) -> None:
        """Workers of a generation end together: once for all of them."""
        if self._spreading is None:
            self._spreading = asyncio.create_task(self._spread_later())

    async def _spread_later(self) -> None:
        await asyncio.sleep(TALLY_DELAY)
        await self.settle()

    async def settle(self) -> None:
        """Bring the copies up to date, if they are not."""
        if self._spreading is not None:
            spreading, self._spreading = self._spreading, None
            if spreading is not asyncio.current_task():
                spreading.cancel()
            await self._spread(msgspec.msgpack.encode(self.totals))

    def close(self) -> None:
        if self._spreading is not None:
            self._spreading.cancel()


def _decoded(copy: bytes) -> Totals | None:
    """None: there is none, or it is of another version of the program."""
    if not copy:
        return None
    try:
        return msgspec.msgpack.decode(copy, type=Totals)
    except msgspec.MsgspecError as error:
        log.warning("counters begin at zero", reason=str(error))
        return None
