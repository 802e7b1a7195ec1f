"""The qlog trace of one connection: events as JSON text sequences (RFC 7464).

draft-ietf-quic-qlog-main-schema-14 section 5. A trace reads no clock: the driver of the connection
sets `now`, so that events of one datagram have the same time. Lines go to the sinks unbuffered.
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
    """Receives lines; never blocks."""

    name: str
    """File name; empty when the sink is not a file."""
    drop_reason: str
    """Why lines are dropped when the sink is full."""

    def write(self, lines: bytes) -> bool:
        """Accept whole lines; False when the sink is full and they are dropped."""

    def close(self) -> None: ...


_ENDLESS = 1 << 62


class _Output:
    """A sink, with its level and remaining size."""

    __slots__ = ("held", "held_size", "left", "level", "sink", "unreported")

    def __init__(self, sink: Sink, level: int, tentative: bool, max_size: int) -> None:
        self.sink = sink
        self.level = level
        self.left = max_size
        self.unreported = 0
        """Dropped events that the trace has not reported yet."""
        self.held: list[bytes] | None = [] if tentative else None
        self.held_size = 0


class Trace:
    """Writes the events of one connection to one or more sinks.

    A level is `core`, `base` or `extra`; less important events are omitted. Events that a full sink
    drops are counted and reported in the trace itself.
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
        """`started` is on the clock of `now`; `wall_clock` is the same time since the epoch.

        `tentative`: nothing is written until `keep`.
        """
        self.now = started
        self.dropped = 0
        """Events dropped by full sinks."""
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
        """Add a sink; it receives the header, what `opening` logs, and all later events."""
        others = self._outputs
        self._use((_Output(sink, LEVELS[level], tentative, max_size),))
        self._put(self._header, 0)
        opening()
        self._use((*others, *self._outputs))

    def detach(self, sink: Sink) -> None:
        """Remove a sink; without sinks the trace is closed."""
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
        """The name of the trace file, if one is written."""
        return next((output.sink.name for output in self._outputs if output.sink.name), None)

    def end_file(self) -> None:
        """Detach the trace file."""
        for output in self._outputs:
            if output.sink.name:
                self._end(output)

    def keep(self) -> None:
        """Write a tentative trace, including what was held back."""
        for output in self._outputs:
            held, output.held = output.held, None
            for lines in held or ():
                self._write(output, lines, 1)

    def discard(self) -> None:
        """End a tentative trace without writing anything."""
        for output in self._outputs:
            if output.held is not None:
                self._end(output)

    @property
    def tentative(self) -> bool:
        """Whether `keep` or `discard` is still pending."""
        return any(output.held is not None for output in self._outputs)

    def close(self) -> None:
        """End the trace."""
        for output in self._outputs:
            self._end(output)

    # --- events ---------------------------------------------------------------------------------

    def log(self, event: Event) -> None:
        """Write an event that happened at `now`, if its importance is within the level."""
        if event.importance <= self.level:
            head = b'\x1e{"time":%.3f,"name":"%b","data":' % (
                self._time(),
                event.name.encode(),
            )
            self._put(head + _encode(event) + b"}\n", 1, event.importance)

    def stream_packets_sent(
        self, first: int, count: int, size: int, stream_id: int, offset: int, length: int
    ) -> None:
        """Write `packet_sent` for `count` packets of `size` bytes, numbered from `first`.

        Each has one STREAM frame of `length` bytes, starting at `offset`. Formatted in one pass,
        because downloads consist of these.
        """
        line = self._stream_packet_line(b"sent", size, stream_id, length, b"")
        numbers = [0] * (2 * count)
        numbers[::2] = range(first, first + count)
        numbers[1::2] = range(offset, offset + count * length, length)
        self._put(line * count % tuple(numbers), count)

    def stream_packet_sent(
        self, number: int, size: int, stream_id: int, offset: int, length: int, fin: bool
    ) -> None:
        """Write `packet_sent` for a packet with one STREAM frame."""
        fin_member = b'"fin":true,' if fin else b""
        line = self._stream_packet_line(b"sent", size, stream_id, length, fin_member)
        self._put(line % (number, offset))

    def stream_packet_received(
        self, number: int, size: int, stream_id: int, offset: int, length: int
    ) -> None:
        """Write `packet_received` for a packet with one STREAM frame, as in uploads."""
        line = self._stream_packet_line(b"received", size, stream_id, length, b"")
        self._put(line % (number, offset))

    def _stream_packet_line(
        self, direction: bytes, size: int, stream_id: int, length: int, fin: bytes
    ) -> bytes:
        """A line template without packet number and offset."""
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
            # The last event explains why the trace ends.
            self._warn(output, "trace file size limit reached")
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
        if lost and self._warn(output, f"{lost} events lost: {output.sink.drop_reason}"):
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
