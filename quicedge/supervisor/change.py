"""What a reload consists of: parts that are all prepared, then all committed or all undone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from quicedge.supervisor.reload import abort, commit, prepare
from quicedge.supervisor.workers import Worker
from quicedge.worker.control import Settings


class Change(Protocol):
    """One part of a reload."""

    async def prepare(self) -> None:
        """Do all that can fail; raises ReloadError, and then nothing is left of it."""

    async def abort(self) -> None:
        """Undo `prepare`, because another part has failed."""

    async def commit(self) -> None:
        """Make it the state of things; cannot fail."""


class ChangeOfWorkers:
    """The workers that run go on with other settings."""

    def __init__(self, workers: list[Worker], settings: Settings) -> None:
        self._workers = workers
        self._settings = settings

    async def prepare(self) -> None:
        await prepare(self._workers, self._settings)

    async def abort(self) -> None:
        await abort(self._workers)

    async def commit(self) -> None:
        await commit(self._workers, self._settings)


async def prepare_all(parts: Iterable[Change]) -> list[Change]:
    """Prepare all parts and return them; raises ReloadError, and then nothing is left of any."""
    prepared: list[Change] = []
    try:
        for part in parts:
            await part.prepare()
            prepared.append(part)
    except BaseException:
        await abort_all(prepared)
        raise
    return prepared


async def abort_all(prepared: Iterable[Change]) -> None:
    """Undo all parts, the last first."""
    for part in reversed(list(prepared)):
        await part.abort()
