"""One connection's qlog trace: events made into JSON text sequences (RFC 7464).

draft-ietf-quic-qlog-main-schema-14 section 5. A trace reads no clock: whoever drives the connection
sets `now`, so events of one datagram bear one time. Nothing is kept: each line goes to the sink.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from quicedge.config.tracelimits import QLOG_MAX_HELD
from quicedge.telemetry.events import BASE, CORE, EXTRA, LEVELS, Event, LogWarning

EVENT_SCHEMAS = [
    "urn:ietf:params:qlog:events:quic-13",
    "urn:ietf:params:qlog:events:http3-13",
    "urn:ietf:params:qlog:events:loglevel-14",
]

_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Where lines go; never blocks."""

    name: str
    """Of a file; empty when it is none."""
    why_lost: str
    """What it means that there was no room."""

    def write(self, lines: bytes) -> bool:
        """Take whole lines; False when there is no room and they are lost."""

    def close(self) -> None: ...


_ENDLESS = 1 << 62


class _Output:
    """A sink, and how much of the trace it gets."""

    __slots__ = ("held", "held_size", "left", "level", "sink", "unreported")

    def __init__(self, sink: Sink, level: int, tentative: bool, max_size: int) -> None:
        self.sink = sink
        self.level = level
        self.left = max_size
        self.unreported = 0
        """Events lost that the trace has not told of."""
        self.held: list[bytes] | None = [] if tentative else None
        self.held_size = 0


class Trace:
    """Writes the events of one connection to sinks, as a rule to one.

    A level is `core`, `base` or `extra`; events of lesser importance are left out. Events are
    dropped, and counted in the trace itself, when a sink has no room.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        level: str,
        group_id: str,
        started: float,
        wall_clock: float,
        vantage_point: str = "server",
        tentative: bool = False,
        max_size: int = _ENDLESS,
    ) -> None:
        """`started` on the clock of `now`, `wall_clock` the same moment since the epoch.

        `tentative`: nothing is written until `keep` (or never, after `close`).
        """
        self.now = started
        self.dropped = 0
        """Events that a sink had no room for."""
        self.closed = False
        self._started = started
        self._header = _header(group_id, vantage_point, wall_clock)
        self._line_key: tuple[object, ...] = ()
        self._line = b""
        self._outputs: tuple[_Output, ...] = ()
        self.attach(sink, level=level, tentative=tentative, max_size=max_size)

    # --- sinks ----------------------------------------------------------------------------------

    def attach(
        self,
        sink: Sink,
        *,
        level: str,
        tentative: bool = False,
        max_size: int = _ENDLESS,
        opening: Callable[[], None] = lambda: None,
    ) -> None:
        """Write to another sink too, from now on: the header, what `opening` logs, what follows."""
        others = self._outputs
        self._use((_Output(sink, LEVELS[level], tentative, max_size),))
        self._put(self._header, 0)
        opening()
        self._use((*others, *self._outputs))

    def detach(self, sink: Sink) -> None:
        """Write to a sink no more; without any the trace is closed."""
        for output in self._outputs:
            if output.sink is sink:
                self._end(output)

    def _use(self, outputs: tuple[_Output, ...]) -> None:
        self._outputs = outputs
        self.level = max((output.level for output in outputs), default=-1)
        self.base = self.level >= BASE
        self.extra = self.level >= EXTRA

    def _end(self, output: _Output) -> None:
        self._report_drops(output)
        output.held = None
        output.sink.close()
        self._use(tuple(other for other in self._outputs if other is not output))
        self.closed = not self._outputs

    @property
    def file(self) -> str | None:
        """The name of the trace file, where one is written."""
        return next((output.sink.name for output in self._outputs if output.sink.name), None)

    def end_file(self) -> None:
        """Write to the file no more."""
        for output in self._outputs:
            if output.sink.name:
                self._end(output)

    def keep(self) -> None:
        """Write what was tentative, and all that follows."""
        for output in self._outputs:
            held, output.held = output.held, None
            for lines in held or ():
                self._write(output, lines, 1)

    def discard(self) -> None:
        """End what was tentative, with nothing written."""
        for output in self._outputs:
            if output.held is not None:
                self._end(output)

    @property
    def tentative(self) -> bool:
        """Whether `keep` or `discard` is still to come."""
        return any(output.held is not None for output in self._outputs)

    def close(self) -> None:
        """No event follows."""
        for output in self._outputs:
            self._end(output)

    # --- events ---------------------------------------------------------------------------------

    def log(self, event: Event) -> None:
        """Write an event that happened at `now`, if the level asks for it."""
        if event.importance <= self.level:
            head = b'\x1e{"time":%.3f,"name":"%b","data":' % (
                self._time(),
                event.name.encode(),
            )
            self._put(head + _encode(event) + b"}\n", 1, event.importance)

    def stream_packets_sent(
        self, first: int, count: int, size: int, stream_id: int, offset: int, length: int
    ) -> None:
        """`packet_sent` of `count` packets of `size` bytes, from number `first` on.

        Each has one STREAM frame of `length` bytes, from `offset` on. Written out by hand, in one
        go: a download is made of these.
        """
        line = self._stream_packet_line(b"sent", size, stream_id, length, b"")
        numbers = [0] * (2 * count)
        numbers[::2] = range(first, first + count)
        numbers[1::2] = range(offset, offset + count * length, length)
        self._put(line * count % tuple(numbers), count)

    def stream_packet_sent(
        self, number: int, size: int, stream_id: int, offset: int, length: int, fin: bool
    ) -> None:
        """`packet_sent` of a packet with one STREAM frame."""
        fin_member = b'"fin":true,' if fin else b""
        line = self._stream_packet_line(b"sent", size, stream_id, length, fin_member)
        self._put(line % (number, offset))

    def stream_packet_received(
        self, number: int, size: int, stream_id: int, offset: int, length: int
    ) -> None:
        """`packet_received` of a packet with one STREAM frame: what an upload is made of."""
        line = self._stream_packet_line(b"received", size, stream_id, length, b"")
        self._put(line % (number, offset))

    def _stream_packet_line(
        self, direction: bytes, size: int, stream_id: int, length: int, fin: bytes
    ) -> bytes:
        """A line that lacks the packet number and the offset."""
        key = (self.now, direction, size, stream_id, length, fin)
        if key != self._line_key:
            self._line_key = key
            self._line = (
                b'\x1e{"time":%.3f,"name":"quic:packet_%b","data":{"header":{"packet_type":"1RTT",'
                b'"packet_number":%%d},"frames":[{"frame_type":"stream","stream_id":%d,'
                b'"offset":%%d,%b"raw":{"payload_length":%d}}],"raw":{"length":%d}}}\n'
            ) % (self._time(), direction, stream_id, fin, length, size)
        return self._line

    def _time(self) -> float:
        return (self.now - self._started) * 1000

    def _put(self, lines: bytes, events: int = 1, importance: int = CORE) -> None:
        for output in self._outputs:
            if importance <= output.level:
                self._write(output, lines, events)

    def _write(self, output: _Output, lines: bytes, events: int) -> None:
        if output.held is not None:
            output.held_size += len(lines)
            if output.held_size <= QLOG_MAX_HELD:
                output.held.append(lines)
            return
        if len(lines) > output.left:
            # Close to the limit, a last event says why there are no more.
            self._warn(output, "the size limit of a trace file is reached")
            self._end(output)
            return
        if output.unreported:
            self._report_drops(output)
        if output.sink.write(lines):
            output.left -= len(lines)
        else:
            self.dropped += events
            output.unreported += events

    def _report_drops(self, output: _Output) -> None:
        lost = output.unreported
        if lost and self._warn(output, f"{lost} events lost: {output.sink.why_lost}"):
            output.unreported = 0

    def _warn(self, output: _Output, message: str) -> bool:
        return output.sink.write(
            b'\x1e{"time":%.3f,"name":"loglevel:warning","data":%b}\n'
            % (self._time(), _encode(LogWarning(message=message)))
        )


def _header(group_id: str, vantage_point: str, wall_clock: float) -> bytes:
    stamp = datetime.fromtimestamp(wall_clock, UTC).isoformat(timespec="milliseconds")
    trace: dict[str, Any] = {
        "common_fields": {
            "group_id": group_id,
            "time_format": "relative_to_epoch",
            "reference_time": {
                "clock_type": "monotonic",
                "epoch": "unknown",
                "wall_clock_time": stamp.replace("+00:00", "Z"),
            },
        },
        "vantage_point": {"name": "quicedge", "type": vantage_point},
        "event_schemas": EVENT_SCHEMAS,
    }
    header = {
        "file_schema": "urn:ietf:params:qlog:file:sequential",
        "serialization_format": "application/qlog+json-seq",
        "title": "quicedge",
        "trace": trace,
    }
    return b"\x1e" + _encode(header) + b"\n"
