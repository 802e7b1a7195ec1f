"""One connection's qlog trace: events made into JSON text sequences (RFC 7464).

draft-ietf-quic-qlog-main-schema-14 section 5. A trace reads no clock: whoever drives the connection
sets `now`, so events of one datagram bear one time. Nothing is kept: each line goes to the sink.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from quicedge.config.tracelimits import QLOG_MAX_HELD
from quicedge.telemetry.events import BASE, EXTRA, LEVELS, Event, LogWarning

EVENT_SCHEMAS = [
    "urn:ietf:params:qlog:events:quic-13",
    "urn:ietf:params:qlog:events:http3-13",
    "urn:ietf:params:qlog:events:loglevel-14",
]

_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Where lines go; never blocks."""

    name: str

    def write(self, lines: bytes) -> bool:
        """Take whole lines; False when there is no room and they are lost."""

    def close(self) -> None: ...


class Trace:
    """Writes the events of one connection to a sink.

    `level` is `core`, `base` or `extra`; events of lesser importance are left out. Events are
    dropped, and counted in the trace itself, when the sink has no room.
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
        max_size: int = 1 << 62,
    ) -> None:
        """`started` on the clock of `now`, `wall_clock` the same moment since the epoch.

        `tentative`: nothing is written until `keep` (or never, after `close`).
        """
        self.level = LEVELS[level]
        self.base = self.level >= BASE
        self.extra = self.level >= EXTRA
        self.now = started
        self.dropped = 0
        """Events the sink had no room for."""
        self.closed = False
        self._sink = sink
        self._started = started
        self._left = max_size
        self._unreported = 0
        self._held: list[bytes] | None = [] if tentative else None
        self._held_size = 0
        self._line_key: tuple[object, ...] = ()
        self._line = b""
        self._put(_header(group_id, vantage_point, wall_clock), 0)

    @property
    def file(self) -> str:
        """The trace file's name."""
        return self._sink.name

    def log(self, event: Event) -> None:
        """Write an event that happened at `now`, if the level asks for it."""
        if event.importance <= self.level:
            head = b'\x1e{"time":%.3f,"name":"%b","data":' % (
                self._time(),
                event.name.encode(),
            )
            self._put(head + _encode(event) + b"}\n")

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

    def keep(self) -> None:
        """Write what a tentative trace holds, and all that follows."""
        held, self._held = self._held, None
        for lines in held or ():
            self._put(lines)

    @property
    def tentative(self) -> bool:
        """Whether `keep` is still to come."""
        return self._held is not None

    def close(self) -> None:
        """No event follows."""
        if not self.closed:
            self._report_drops()
            self.closed = True
            self._held = None
            self._sink.close()

    def _time(self) -> float:
        return (self.now - self._started) * 1000

    def _put(self, lines: bytes, events: int = 1) -> None:
        if self.closed:
            return
        if self._held is not None:
            self._held_size += len(lines)
            if self._held_size <= QLOG_MAX_HELD:
                self._held.append(lines)
            return
        if len(lines) > self._left:
            # Close to the limit, a last event says why there are no more.
            self._warn("the size limit of a trace file is reached")
            self.close()
            return
        if self._unreported:
            self._report_drops()
        if self._sink.write(lines):
            self._left -= len(lines)
        else:
            self.dropped += events
            self._unreported += events

    def _report_drops(self) -> None:
        if self._unreported and self._warn(f"{self._unreported} events lost: the disk is slow"):
            self._unreported = 0

    def _warn(self, message: str) -> bool:
        return self._sink.write(
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
