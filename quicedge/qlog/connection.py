"""Statistics of one connection, from the events recorded at one end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quicedge.qlog.blocked_time import Credit
from quicedge.qlog.event import (
    Direction,
    Event,
    Vantage,
    frame_length,
    frames,
    integer,
    mapping,
    sequence,
    text,
)
from quicedge.qlog.flight import Flight
from quicedge.qlog.gaps import Gaps
from quicedge.qlog.inferred import Receiver, Sender
from quicedge.qlog.names import space_of
from quicedge.qlog.normalise import Trace
from quicedge.qlog.packets import Packets
from quicedge.qlog.recovery import Recovery
from quicedge.qlog.series import Sums
from quicedge.qlog.streams import Streams

_MAX_NAMES = 256
"""Maximum number of event names that are counted separately."""
_HANDSHAKE_PACKETS = ("initial", "handshake", "0RTT", "retry", "version_negotiation")
_HANDSHAKE_STATES = ("attempted", "peer_validated", "handshake_started", "early_write")


class Connection:
    """One connection of a trace: call `add` with its events in order, then read the attributes.

    Times are milliseconds since the start of the trace, sizes bytes.
    """

    def __init__(self, trace: Trace, group: str = "", detail_from: float = 0.0) -> None:
        self.trace = trace
        self.group = group
        self.events = 0
        self.names: dict[str, int] = {}
        self.start: float | None = None
        self.end = 0.0
        self.sent = Packets()
        self.received = Packets()
        self.flight = Flight()
        self.streams = Streams(server=self.vantage is Vantage.SERVER)
        self.parameters: dict[str, dict[str, Any]] = {"local": {}, "remote": {}}
        self.version = ""
        self.alpn = ""
        self.begins_late: bool | None = None
        """The trace begins in mid-connection, after the handshake; None: not known yet."""
        self.handshake_complete: float | None = None
        """Also None if it was before the trace; likewise `handshake_confirmed`."""
        self.handshake_confirmed: float | None = None
        self.early_data = False
        self.close: dict[str, Any] | None = None
        self.dropped: dict[str, int] = {}
        self.gaps = Gaps()
        self.spurious_events = 0
        self.ecn_ce = 0
        self.mtu: int | None = None
        self.data: dict[str, list[float]] = {}
        """Per direction: first and last time of stream data, and its bytes."""
        self.sender = Sender()
        self.receiver = Receiver()
        self.recovery = Recovery(self.sender, self.receiver)
        self.sending_limits = Sums()
        self.receiving_limits = Sums()
        self.losses = Sums()
        self.goodput = Sums()
        self._detail_from = detail_from
        self._now = 0.0
        self._crypto: dict[str, int] = {}
        """The highest offset of CRYPTO data, by packet type."""
        self._stream_limits: dict[int, int] = {}

    # --- identity ---------------------------------------------------------------------------

    @property
    def vantage(self) -> Vantage:
        return self.trace.header.vantage

    @property
    def label(self) -> str:
        """A human-readable name: implementation and vantage point."""
        return f"{self.trace.header.implementation} {self.vantage}"

    @property
    def identifier(self) -> str:
        """The original destination connection ID, or the group named by the trace."""
        if self.group:
            return self.group
        common = self.trace.header.common
        for name in ("ODCID", "odcid", "group_id"):
            if isinstance(common.get(name), str):
                return text(common, name)
        for side in self.parameters.values():
            if text(side, "original_destination_connection_id"):
                return text(side, "original_destination_connection_id")
        return ""

    @property
    def duration(self) -> float:
        return self.end - (self.start or 0.0)

    @property
    def direction(self) -> Direction:
        """The direction of most stream data."""
        sent = self.data.get(Direction.SENT, [0, 0, 0])[2]
        received = self.data.get(Direction.RECEIVED, [0, 0, 0])[2]
        return Direction.SENT if sent >= received else Direction.RECEIVED

    @property
    def limits(self) -> Sums:
        """Milliseconds by what limited the transfer in its main direction."""
        return self.sending_limits if self.direction is Direction.SENT else self.receiving_limits

    @property
    def lost(self) -> int:
        """Lost packets: those the trace declares, else those inferred by the packet threshold."""
        return self.flight.lost or self.flight.inferred_lost

    @property
    def spurious(self) -> int:
        return max(self.flight.spurious, self.spurious_events)

    # --- events -----------------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """Process the next event."""
        self.events += 1
        if event.name in self.names or len(self.names) < _MAX_NAMES:
            self.names[event.name] = self.names.get(event.name, 0) + 1
        if self.start is None:
            self.start = self._now = event.time
        if self.begins_late is None:
            self._find_beginning(event)
        if event.time > self._now:
            self._let_time_pass(event.time)
        self.end = max(self.end, event.time)
        handler = _HANDLERS.get(event.name)
        if handler is not None:
            handler(self, event)

    def _let_time_pass(self, now: float) -> None:
        """Account for the time since the previous instant."""
        if self.close is None:
            # Metrics that are logged rarely are stale; our own count is better then.
            if self.recovery.samples * 2 < self.sent.count:
                self.sender.facts.in_flight = self.flight.size
            # In a trace without frames only bytes in flight show that data is sent.
            self.sender.facts.due = self.streams.due_to_send > 0 or (
                not self.sent.frames and self.sender.facts.in_flight > 0
            )
            for state, start, end in self.sender.periods(self._now, now):
                self.sending_limits.spread(start, end, state)
            self.receiver.facts.due = self.streams.due_to_receive
            for state, start, end in self.receiver.periods(self._now, now):
                self.receiving_limits.spread(start, end, state)
        self._now = now

    def _find_beginning(self, event: Event) -> None:
        """Determine whether the trace includes the handshake, by the first event that shows it."""
        if event.name in ("quic:packet_sent", "quic:packet_received"):
            kind = text(mapping(event.data, "header"), "packet_type")
            if kind in _HANDSHAKE_PACKETS:
                self.begins_late = False
            elif kind == "1RTT" and self._shows_no_handshake():
                self._begin_late()
        elif text(event.data, "old") in _HANDSHAKE_STATES or (
            text(event.data, "new") in _HANDSHAKE_STATES
        ):
            self.begins_late = False

    def _shows_no_handshake(self) -> bool:
        return not self.sent.count and not self.received.count

    def _begin_late(self) -> None:
        """Discard assumptions about limits and counts from before the trace."""
        self.begins_late = self.streams.begins_late = True
        self.handshake_complete = self.handshake_confirmed = None
        self._end_handshake()
        self.sender.max_data = None
        self.receiver.facts.connection = Credit()

    def _end_handshake(self) -> None:
        self.sender.facts.handshake = self.receiver.facts.handshake = False

    def _on_packet_sent(self, event: Event) -> None:
        kind, packet_number, size, found = self._packet(event)
        detailed = event.time >= self._detail_from
        eliciting = self.sent.add(event.time, kind, packet_number, size, found, detailed)
        if 500 < size <= 65535:
            self.sender.facts.datagram_size = max(self.sender.facts.datagram_size, size)
        if packet_number is not None and eliciting:
            self.flight.sent(space_of(kind), packet_number, event.time, size)
            self.sender.sent(event.time)
            if self.recovery.samples * 2 < self.sent.count:
                self.recovery.in_flight(event.time, self.flight.size)
        if kind == "0RTT":
            self.early_data = True
        for frame in found:
            self._frame(event, frame, True, kind)

    def _on_packet_received(self, event: Event) -> None:
        kind, packet_number, size, found = self._packet(event)
        self.received.add(
            event.time, kind, packet_number, size, found, event.time >= self._detail_from
        )
        if kind == "0RTT":
            self.early_data = True
        if packet_number is not None:
            self.gaps.received(space_of(kind), packet_number)
        for frame in found:
            self._frame(event, frame, False, kind)

    def _packet(self, event: Event) -> tuple[str, int | None, int, list[dict[str, Any]]]:
        header = mapping(event.data, "header")
        if not self.version and text(header, "version"):
            self.version = text(header, "version")[:32]
        raw = mapping(event.data, "raw")
        size = integer(raw, "length")
        if size is None:
            size = integer(raw, "payload_length") or 0
        return (
            text(header, "packet_type")[:32] or "unknown",
            integer(header, "packet_number"),
            size,
            frames(event.data),
        )

    def _frame(self, event: Event, frame: dict[str, Any], sent: bool, packet: str) -> None:
        kind = frame.get("frame_type")
        if kind == "stream":
            self._stream_data(event, frame, sent)
        elif kind == "ack" and not sent:
            settled = self.flight.acked(
                space_of(packet), sequence(frame, "acked_ranges"), event.time
            )
            if settled.round_trip is not None and not self.recovery.samples:
                self.recovery.round_trip(event.time, settled.round_trip)
            if settled.size:
                self.sender.acknowledged(event.time, self.flight.size)
            if settled.inferred:
                self.losses.add(event.time, settled.inferred, "inferred")
            self.ecn_ce = max(self.ecn_ce, integer(frame, "ce") or 0)
        elif kind == "crypto":
            # RFC 9001 section 4.1.1: complete when the Finished of both sides has been handled;
            # the client's is its first CRYPTO data in a Handshake packet.
            if packet == "handshake" and sent == (self.vantage is Vantage.CLIENT):
                self._complete(event.time)
            if not sent:
                end = self._crypto.get(packet, 0)
                offset, size = integer(frame, "offset") or 0, frame_length(frame)
                self.gaps.data(size, offset - end)
                self._crypto[packet] = max(end, offset + size)
        elif kind == "handshake_done":
            self._complete(event.time)
            self._confirmed(event.time)
        elif kind == "max_data":
            self._connection_limit(event.time, integer(frame, "maximum"), local=sent)
        elif kind == "max_stream_data":
            self._stream_limit(event.time, frame, sent)
        elif kind in ("data_blocked", "stream_data_blocked"):
            if sent:
                if kind == "stream_data_blocked":
                    self.sender.stream_blocked(integer(frame, "stream_id") or 0)
            else:
                self.receiver.complained(frame)
        elif kind in ("reset_stream", "reset_stream_at", "stop_sending"):
            stream = integer(frame, "stream_id")
            if stream is not None:
                self.streams.reset(stream, event.time, sent)
                self.sender.blocked_streams.discard(stream)
        elif kind == "connection_close":
            self._closed(event, frame, "local" if sent else "remote")

    def _stream_data(self, event: Event, frame: dict[str, Any], sent: bool) -> None:
        stream = integer(frame, "stream_id")
        if stream is None:
            return
        size = frame_length(frame)
        offset = integer(frame, "offset") or 0
        fin = frame.get("fin") is True
        row = self.streams.rows.get(stream)
        if not sent and (row is not None or not self.begins_late):
            self.gaps.data(size, offset - (row.received_end if row is not None else 0))
        grown = self.streams.data(stream, event.time, offset, size, fin, sent)
        way = Direction.SENT if sent else Direction.RECEIVED
        span = self.data.setdefault(way, [event.time, event.time, 0.0])
        span[1] = max(span[1], event.time)
        span[2] += grown
        if grown:
            self.goodput.add(event.time, grown, way)
        if sent:
            self.sender.data(event.time, size, fin)
            self.sender.data_sent += grown
            limit = self._stream_limits.get(stream)
            if limit is None and not (self.begins_late and offset):
                limit = self._initial_stream_limit(stream, "remote")
            if limit is not None and offset + size >= limit and not fin:
                self.sender.stream_blocked(stream)
            elif fin:
                self.sender.blocked_streams.discard(stream)
        else:
            receiving = self.receiver.facts
            receiving.connection.used += int(grown)
            if fin:
                self.receiver.closed(stream)
            elif not stream & 2:
                known = None if self.begins_late else self._initial_stream_limit(stream, "local")
                receiving.data(event.time, stream, offset + size, known)

    def _initial_stream_limit(self, stream: int, side: str) -> int | None:
        """The initial stream limit from the transport parameters of one side (RFC 9000 section
        18.2)."""
        parameters = self.parameters[side]
        if stream & 2:
            return integer(parameters, "initial_max_stream_data_uni")
        ours = bool(stream & 1) == (self.vantage is Vantage.SERVER)
        opener = "local" if ours == (side == "local") else "remote"
        return integer(parameters, f"initial_max_stream_data_bidi_{opener}")

    def _stream_limit(self, time: float, frame: dict[str, Any], sent: bool) -> None:
        stream, maximum = integer(frame, "stream_id"), integer(frame, "maximum")
        if stream is None or maximum is None:
            return
        if sent:
            self.receiver.granted(time, stream, maximum)
            return
        self.sender.blocked_streams.discard(stream)
        if stream in self.streams.rows:
            self._stream_limits[stream] = max(maximum, self._stream_limits.get(stream, 0))

    def _connection_limit(self, time: float, maximum: int | None, local: bool) -> None:
        if maximum is None:
            return
        if local:
            self.receiver.granted(time, None, maximum)
        else:
            self.sender.max_data = max(maximum, self.sender.max_data or 0)

    def _on_packet_lost(self, event: Event) -> None:
        header = mapping(event.data, "header")
        packet_number = integer(header, "packet_number")
        packets = integer(event.data, "lost_packets") or 1
        self.losses.add(event.time, packets, "lost")
        if packet_number is not None:
            self.flight.declared_lost(space_of(text(header, "packet_type")), packet_number)
        else:
            self.flight.lost += packets

    def _on_metrics(self, event: Event) -> None:
        self.recovery.metrics(event)

    def _on_parameters(self, event: Event) -> None:
        side = self.parameters.get(text(event.data, "initiator"))
        if side is None or len(side) > _MAX_NAMES:
            return
        side.update(event.data)
        if text(event.data, "alpn"):
            self.alpn = text(event.data, "alpn")[:32]
        if not self.begins_late:
            maximum = integer(event.data, "initial_max_data")
            self._connection_limit(event.time, maximum, local=side is self.parameters["local"])

    def _on_version(self, event: Event) -> None:
        self.version = text(event.data, "chosen_version")[:32] or self.version

    def _on_alpn(self, event: Event) -> None:
        chosen = mapping(event.data, "chosen_alpn")
        offered = sequence(event.data, "client_alpns")
        if not chosen and len(offered) == 1 and isinstance(offered[0], dict):
            chosen = offered[0]
        self.alpn = (text(chosen, "string_value") or text(chosen, "byte_value"))[:32] or self.alpn

    def _on_state(self, event: Event) -> None:
        state = text(event.data, "new")
        if state in ("handshake_complete", "handshake_completed"):
            self._complete(event.time)
        elif state == "handshake_confirmed":
            self._complete(event.time)
            self._confirmed(event.time)

    def _complete(self, time: float) -> None:
        self._end_handshake()
        if self.handshake_complete is None and not self.begins_late:
            self.handshake_complete = time

    def _confirmed(self, time: float) -> None:
        if self.handshake_confirmed is None and not self.begins_late:
            self.handshake_confirmed = time
            # RFC 9002 section 6.4: packets of discarded spaces no longer count.
            self.flight.discard("initial")
            self.flight.discard("handshake")

    def _on_key_discarded(self, event: Event) -> None:
        kind = text(event.data, "key_type")
        for space in ("initial", "handshake"):
            if space in kind:
                self.flight.discard(space)

    def _on_congestion_state(self, event: Event) -> None:
        self.recovery.state(event)

    def _on_closed(self, event: Event) -> None:
        self._closed(event, event.data, text(event.data, "initiator"))

    def _closed(self, event: Event, data: dict[str, Any], by: str) -> None:
        if self.close is not None:
            return
        error = ""
        for member in ("error", "connection_error", "application_error"):
            if text(data, member):
                error = text(data, member)[:64]
                break
        self.close = {
            "time": event.time,
            "by": by if by in ("local", "remote") else "unknown",
            "error": error,
            "code": integer(data, "error_code"),
            "reason": text(data, "reason")[:256],
            "trigger": text(data, "trigger")[:64],
        }

    def _on_dropped(self, event: Event) -> None:
        trigger = text(event.data, "trigger")[:64] or "unspecified"
        if trigger in self.dropped or len(self.dropped) < _MAX_NAMES:
            self.dropped[trigger] = self.dropped.get(trigger, 0) + 1

    def _on_spurious(self, event: Event) -> None:
        self.spurious_events += 1

    def _on_mtu(self, event: Event) -> None:
        self.mtu = integer(event.data, "new")

    def _on_blocked(self, event: Event) -> None:
        self.sender.reason_logged(event)

    def _on_http(self, event: Event) -> None:
        self.streams.http(event)

    def _on_frames_created(self, event: Event) -> None:
        for frame in frames(event.data):
            self._frame(event, frame, True, "1RTT")

    def _on_frames_parsed(self, event: Event) -> None:
        for frame in frames(event.data):
            self._frame(event, frame, False, "1RTT")


_HANDLERS: dict[str, Callable[[Connection, Event], None]] = {
    "quic:packet_sent": Connection._on_packet_sent,
    "quic:packet_received": Connection._on_packet_received,
    "quic:packet_lost": Connection._on_packet_lost,
    "quic:packet_dropped": Connection._on_dropped,
    "quic:recovery_metrics_updated": Connection._on_metrics,
    "quic:congestion_state_updated": Connection._on_congestion_state,
    "quic:parameters_set": Connection._on_parameters,
    "quic:version_information": Connection._on_version,
    "quic:alpn_information": Connection._on_alpn,
    "quic:connection_state_updated": Connection._on_state,
    "quic:connection_closed": Connection._on_closed,
    "quic:key_discarded": Connection._on_key_discarded,
    "quic:spurious_loss": Connection._on_spurious,
    "quic:mtu_updated": Connection._on_mtu,
    "quic:connection_data_blocked_updated": Connection._on_blocked,
    "quic:stream_data_blocked_updated": Connection._on_blocked,
    "quic:frames_created": Connection._on_frames_created,
    "quic:frames_parsed": Connection._on_frames_parsed,
    "http3:frame_created": Connection._on_http,
    "http3:frame_parsed": Connection._on_http,
    "http3:stream_type_set": Connection._on_http,
}
