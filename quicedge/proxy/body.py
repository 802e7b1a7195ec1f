"""Stages that a body passes on its way through the edge, in either direction.

A stage is pushed data and pushes what it makes of it to its `sink`. Backpressure goes the other
way: the sink pauses the stage, which pauses its `source`, unless it holds data itself. A stage may
keep data back as long as that is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quicedge.http.message import Field


class Sink(Protocol):
    """Takes a body."""

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...


class Source(Protocol):
    """Sends a body."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class BodyStage:
    """One stage; this one passes everything on. `connect` is called before anything else.

    After `pause` a stage should write no more than what its source had already sent, until
    `resume`. `close` is called last, whether or not the body was complete.
    """

    sink: Sink
    source: Source
    owner = ""
    """The filter that has added it, for logs."""

    def connect(self, source: Source, sink: Sink) -> None:
        """Join the stage with its neighbours."""
        self.source, self.sink = source, sink

    def write(self, data: bytes) -> None:
        """Receive a part of the body."""
        self.sink.write(data)

    def end(self, trailers: Sequence[Field]) -> None:
        """The body is complete."""
        self.sink.end(trailers)

    def pause(self) -> None:
        """The sink does not keep up."""
        self.source.pause()

    def resume(self) -> None:
        """The sink takes data again."""
        self.source.resume()

    def close(self) -> None:
        """Release what the stage holds: nothing more will be sent."""


class BodyPath:
    """Stages in the order that a body passes them, joined; it is used like a single one."""

    __slots__ = ("_stages", "end", "pause", "resume", "write")

    def __init__(self, stages: Sequence[BodyStage], source: Source, sink: Sink) -> None:
        self._stages = tuple(stages)
        first, last = self._stages[0], self._stages[-1]
        sources: list[Source] = [source, *self._stages[:-1]]
        sinks: list[Sink] = [*self._stages[1:], sink]
        for stage, before, after in zip(self._stages, sources, sinks, strict=True):
            stage.connect(before, after)
        self.write = first.write
        self.end = first.end
        self.pause = last.pause
        self.resume = last.resume

    def disconnect(self) -> None:
        """The body is over: what stages still send goes nowhere, and they are freed at once."""
        for stage in self._stages:
            stage.connect(_NOWHERE, _NOWHERE)


class _Nowhere:
    """Neither takes nor sends a body."""

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


_NOWHERE = _Nowhere()
