"""The streams of a connection: lifetime, bytes, and the interleaving of their data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quicedge.config.tracelimits import QLOG_MAX_RUNS, QLOG_MAX_STREAMS
from quicedge.qlog.event import Direction, Event, integer, mapping, sequence, text

_LONGEST_FIELD = 256
"""Maximum length of a request's path, method or status."""
OTHERS = -1
"""Stream ID of the row that sums the streams beyond the limit."""


@dataclass(slots=True)
class Stream:
    """One stream. Times in ms, sizes in bytes."""

    id: int
    opened: float
    closed: float
    """The time of its last event."""
    first_sent: float | None = None
    last_sent: float | None = None
    first_received: float | None = None
    last_received: float | None = None
    sent: int = 0
    """Bytes sent during the trace, without retransmissions."""
    received: int = 0
    sent_end: int = 0
    """Highest offset sent."""
    received_end: int = 0
    retransmitted: int = 0
    """Retransmitted bytes."""
    late: int = 0
    """Bytes received below the highest offset: gap fills or duplicates."""
    fin_sent: bool = False
    fin_received: bool = False
    reset: str = ""
    """`sent`, `received` or empty."""
    kind: str = ""
    """HTTP/3 stream type, if logged."""
    method: str = ""
    path: str = ""
    status: str = ""

    def due(self, server: bool) -> tuple[bool, bool]:
        """Whether a message is due to be sent, and to be received, at a server or a client.

        A request is due from whoever opened the stream, a response once the request is complete
        or as soon as it has begun. Unidirectional streams of HTTP/3 never end and do not count.
        """
        if self.id & 2 or self.id < 0 or self.reset:
            return False, False
        ours = bool(self.id & 1) is server
        return (
            not self.fin_sent and (ours or self.fin_received or self.sent_end > 0),
            not self.fin_received and (not ours or self.fin_sent or self.received_end > 0),
        )


@dataclass(slots=True)
class Run:
    """Consecutive data of one stream."""

    start: float
    end: float
    stream: int
    size: int


@dataclass(slots=True)
class Interleaving:
    """The sequence of runs of stream data; runs close together are merged into the larger."""

    runs: list[Run] = field(default_factory=list)
    _quantum: float = 0.0

    def add(self, time: float, stream: int, size: int) -> None:
        if self.runs:
            last = self.runs[-1]
            if last.stream == stream:
                last.end = max(last.end, time)
                last.size += size
                return
        self.runs.append(Run(time, time, stream, size))
        while len(self.runs) > QLOG_MAX_RUNS:
            self._fold()

    def _fold(self) -> None:
        """Merge neighbours that end within a quantum of each other's start."""
        self._quantum = self._quantum * 2 or 0.25
        merged: list[Run] = []
        for run in self.runs:
            last = merged[-1] if merged else None
            near = last is not None and run.end - last.start <= self._quantum
            if last is not None and (near or last.stream == run.stream):
                if run.size > last.size:
                    last.stream = run.stream
                last.size += run.size
                last.end = max(last.end, run.end)
            else:
                merged.append(run)
        self.runs = merged


class Streams:
    """All streams up to a limit; the others are summed in one row."""

    def __init__(self, *, server: bool) -> None:
        """`server`: the trace is a server's."""
        self.rows: dict[int, Stream] = {}
        self.sent = Interleaving()
        self.received = Interleaving()
        self.due_to_send = 0
        """Streams on which a message is due to be sent."""
        self.due_to_receive = 0
        self.begins_late = False
        """Streams may have begun before the trace."""
        self._server = server
        self.beyond_limit = 0
        """Frames of streams without a row of their own."""

    def get(self, identifier: int, time: float) -> Stream:
        row = self.rows.get(identifier)
        if row is None:
            if len(self.rows) > QLOG_MAX_STREAMS:
                self.beyond_limit += 1
                row = self.rows.get(OTHERS)
                if row is None:
                    row = self.rows[OTHERS] = Stream(OTHERS, time, time)
            else:
                row = self.rows[identifier] = Stream(identifier, time, time)
                self._settle(row, (False, False))
        row.closed = max(row.closed, time)
        return row

    def data(
        self, identifier: int, time: float, offset: int, size: int, fin: bool, sent: bool
    ) -> int:
        """Process a STREAM frame; returns its bytes above the highest known offset."""
        row = self.get(identifier, time)
        was_due = row.due(self._server)
        known = row.sent_end if sent else row.received_end
        first = (row.first_sent if sent else row.first_received) is None
        if row.id == OTHERS:
            offset = known
        elif first and self.begins_late:
            known = offset  # lower offsets were before the trace
        end = offset + size
        grown = max(0, end - known)
        again = size - max(0, end - max(known, offset))
        if sent:
            row.first_sent = time if first else row.first_sent
            row.last_sent = time
            row.sent += grown
            row.sent_end = max(known, end)
            row.retransmitted += again
            row.fin_sent = row.fin_sent or fin
            self.sent.add(time, identifier, size)
        else:
            row.first_received = time if first else row.first_received
            row.last_received = time
            row.received += grown
            row.received_end = max(known, end)
            row.late += again
            row.fin_received = row.fin_received or fin
            self.received.add(time, identifier, size)
        self._settle(row, was_due)
        return grown

    def reset(self, identifier: int, time: float, sent: bool) -> None:
        """Process a RESET_STREAM or STOP_SENDING frame."""
        row = self.get(identifier, time)
        was_due = row.due(self._server)
        row.reset = Direction.SENT if sent else Direction.RECEIVED
        self._settle(row, was_due)

    def _settle(self, row: Stream, was_due: tuple[bool, bool]) -> None:
        due = row.due(self._server)
        self.due_to_send += due[0] - was_due[0]
        self.due_to_receive += due[1] - was_due[1]

    def http(self, event: Event) -> None:
        """Process an HTTP/3 event, which shows the purpose of a stream."""
        identifier = integer(event.data, "stream_id")
        if identifier is None:
            return
        row = self.get(identifier, event.time)
        if event.name == "http3:stream_type_set":
            kind = text(event.data, "stream_type") or text(event.data, "new")
            row.kind = kind[:_LONGEST_FIELD]
            return
        for item in sequence(mapping(event.data, "frame"), "headers"):
            if isinstance(item, dict):
                self._pseudo(row, item)

    @staticmethod
    def _pseudo(row: Stream, item: dict[str, Any]) -> None:
        name, value = text(item, "name"), text(item, "value")[:_LONGEST_FIELD]
        if name == ":method":
            row.method = value
        elif name == ":path":
            row.path = value
        elif name == ":status":
            row.status = value
