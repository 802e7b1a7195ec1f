"""A buffer in the way of a body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from quicedge.config.filterlimits import BUFFER_PIECE
from quicedge.http.message import Field, Fields
from quicedge.proxy.body import BodyStage
from quicedge.proxy.spill import Spill


class BufferStage(BodyStage):
    """Takes a body as fast as it comes, and passes it on as fast as it goes.

    The source waits only when the buffer holds `max_size` bytes. `guard` calls what may fail, and
    ends the exchange then (`run.FilterRun.guard`).
    """

    def __init__(self, spill: Spill, max_size: int, guard: Callable[..., None]) -> None:
        self._spill = spill
        self._max_size = max_size
        self._guard = guard
        self._paused = False
        self._source_waits = False
        self._end: Fields | None = None
        self._scheduled = False
        self._closed = False

    def write(self, data: bytes) -> None:
        spill = self._spill
        if not self._paused and not spill.size:
            self.sink.write(data)
            return
        spill.append(data)
        if not self._source_waits and (spill.size >= self._max_size or not spill.may_grow):
            self._source_waits = True
            self.source.pause()
        self._go_on()

    def end(self, trailers: Sequence[Field]) -> None:
        if not self._paused and not self._spill.size:
            self.sink.end(trailers)
            return
        self._end = list(trailers)
        self._go_on()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        """Pass on what is there, a piece per turn of the loop."""
        if self._paused or self._scheduled or self._closed:
            return
        if self._spill.size or self._end is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._guard, self._pass_piece)

    def _pass_piece(self) -> None:
        self._scheduled = False
        if self._paused or self._closed:
            return
        spill = self._spill
        if spill.size:
            self.sink.write(spill.read(BUFFER_PIECE))
        if self._source_waits and spill.size < self._max_size // 2:
            self._source_waits = False
            self.source.resume()
        if not spill.size and self._end is not None:
            end, self._end = self._end, None
            self.sink.end(end)
        else:
            self._go_on()

    def close(self) -> None:
        self._closed = True
        self._spill.close()
