"""What a connection tells of itself: the trace it may have, and what limits its sending.

A connection without a trace pays one attribute check a packet run. One with a trace keeps the
batched paths; its packets are described after they were built or opened.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.packet import QuicTransportParameters, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from quicedge.qlog.limited import Limit
from quicedge.quic import logged
from quicedge.quic.adapter.limiting import note_limits
from quicedge.quic.adapter.logger import TraceLogger
from quicedge.quic.adapter.returning import ReturningConnection
from quicedge.quic.adapter.sending import Transmit
from quicedge.quic.ending import Ending
from quicedge.quic.limited import LimitClock, main_limit
from quicedge.quic.recovery import PACKET_THRESHOLD, TIME_THRESHOLD
from quicedge.quic.rtt import GRANULARITY
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace

ONE_RTT = tls.Epoch.ONE_RTT
_SPACES = {
    tls.Epoch.INITIAL: "initial",
    tls.Epoch.HANDSHAKE: "handshake",
    tls.Epoch.ONE_RTT: "1RTT",
}
_STATES = {
    QuicConnectionState.FIRSTFLIGHT: "attempted",
    QuicConnectionState.CONNECTED: "handshake_started",
    QuicConnectionState.CLOSING: "closing",
    QuicConnectionState.DRAINING: "draining",
    QuicConnectionState.TERMINATED: "closed",
}


class TracingConnection(ReturningConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.limits = LimitClock()
        """What has limited the connection, and for how long."""
        self.group: str | None = None
        """The key exchange group, by its name in TLS; None before there is one."""
        self.key_updates = 0
        """Key updates of either side (RFC 9001 section 6)."""
        self._key_phase = 0
        self._metrics: tuple[Any, ...] = ()
        self._watched: tuple[Any, ...] = ()
        self._local_parameters = b""
        self._remote_parameters = b""
        self._agreement_traced = False

    # --- the trace ------------------------------------------------------------------------------

    def start_trace(self, trace: Trace) -> None:
        """Write events from now on; the trace is closed with the connection, or by `stop_trace`."""
        self.stop_trace()
        self.trace = trace
        self._quic_logger = TraceLogger(
            trace, lambda: self._remote_parameters, lambda: self.is_holding
        )
        self._loss.on_packets_lost = self._trace_lost
        self.trace_opening()

    def trace_opening(self) -> None:
        """Write what a trace begins with, and again all that is only written when it changes."""
        trace, logger, loss = self.trace, self._quic_logger, self._loss
        assert trace is not None
        assert logger is not None
        self._metrics = self._watched = ()
        self._agreement_traced = False
        trace.log(
            events.RecoveryParametersSet(
                reordering_threshold=PACKET_THRESHOLD,
                time_threshold=TIME_THRESHOLD,
                timer_granularity=round(GRANULARITY * 1000),
                initial_rtt=loss.rtt.initial * 1000,
                max_datagram_size=self._max_datagram_size,
                initial_congestion_window=loss.controller.congestion_window,
            )
        )
        self._trace_agreement()
        if self._remote_parameters:
            # A trace that starts late begins with what was agreed.
            for owner, parameters in (
                ("local", self.local_parameters),
                ("remote", self.remote_parameters),
            ):
                logger.log_event(
                    category="transport",
                    event="parameters_set",
                    data=logger.encode_transport_parameters(owner, parameters),
                )

    def _trace_agreement(self) -> None:
        """Write once what versions and application protocols there were, and which were chosen.

        A client's hello tells, even one with whose protocols there is no agreement.
        """
        context = getattr(self, "tls", None)
        offered = getattr(context, "alpn_offered", None)
        if self._agreement_traced or (offered is None and self.alpn is None):
            return
        self._agreement_traced = True
        logger, remote = self._quic_logger, self._remote_version_information
        assert logger is not None
        for event, data in (
            (
                "version_information",
                {
                    "server_versions": self._configuration.supported_versions,
                    "client_versions": remote.available_versions if remote is not None else None,
                    "chosen_version": self._version,
                },
            ),
            (
                "alpn_information",
                {
                    "server_alpns": self._configuration.alpn_protocols,
                    "client_alpns": offered,
                    "chosen_alpn": self.alpn,
                },
            ),
        ):
            logger.log_event(category="transport", event=event, data=data)

    def stop_trace(self) -> None:
        trace, self.trace = self.trace, None
        if trace is None:
            return
        if isinstance(self._quic_logger, TraceLogger):
            self._quic_logger.flush()
        self._quic_logger = None
        self._loss.on_packets_lost = None
        trace.close()

    def _close_end(self) -> None:
        trace, event = self.trace, self._close_event
        if trace is not None and event is not None:
            trace.log(logged.connection_closed(event, self.ending or Ending.ABORTED))
        self.stop_trace()
        super()._close_end()

    # --- what goes out --------------------------------------------------------------------------

    def transmit(self, now: float) -> list[Transmit]:
        if self.trace is not None:
            self.trace.now = now
        runs = super().transmit(now)
        note_limits(self, self.limits, now)
        if self.key_phase != self._key_phase:
            self._note_key_update()
        if self.trace is not None:
            self._watch(now)
        return runs

    def _seal_one(
        self,
        payload: bytes,
        handlers: list[Any],
        eliciting: bool,
        now: float,
        in_flight: bool = True,
    ) -> Transmit:
        number = self._packet_number
        run = super()._seal_one(payload, handlers, eliciting, now, in_flight)
        if self.trace is not None:
            self.trace.log(
                events.PacketSent(
                    header=events.PacketHeader("1RTT", number),
                    frames=logged.describe(payload, self._local_ack_delay_exponent),
                    raw=events.RawInfo(len(run.data)),
                    is_mtu_probe_packet=not in_flight,
                )
            )
        return run

    def _batch(self, ready: list[QuicStream], room: int, now: float) -> Transmit | None:
        highest = ready[0].sender.highest_offset
        run = super()._batch(ready, room, now)
        if run is None:
            return None
        batch = self._loss.batches.batches[-1]
        if batch.offset < highest:
            self.stream_bytes_retransmitted += min(highest, batch.end) - batch.offset
        if self.trace is not None:
            full = len(batch) - 1
            stream_id = batch.stream.stream_id
            self.trace.stream_packets_sent(
                batch.first, full, batch.size, stream_id, batch.offset, batch.chunk
            )
            last = batch.offset + full * batch.chunk
            self.trace.stream_packet_sent(
                batch.stop - 1, batch.last_size, stream_id, last, batch.end - last, batch.fin
            )
        return run

    def _write_stream_frame(
        self,
        builder: QuicPacketBuilder,
        space: QuicPacketSpace,
        stream: QuicStream,
        max_offset: int,
    ) -> int:
        sender = stream.sender
        again = _below(sender, sender.highest_offset)
        used = super()._write_stream_frame(builder, space, stream, max_offset)
        if again:
            self.stream_bytes_retransmitted += again - _below(sender, sender.highest_offset)
        return used

    def _serialize_transport_parameters(self) -> bytes:
        self._local_parameters = super()._serialize_transport_parameters()
        return self._local_parameters

    # --- what comes in --------------------------------------------------------------------------

    def receive_run(self, datagrams: list[bytes], at: int, addr: Any, now: float) -> int:
        if self.trace is None:
            return super().receive_run(datagrams, at, addr, now)
        self.trace.now = now
        handled = super().receive_run(datagrams, at, addr, now)
        self._received(now)
        return handled

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self.trace is not None:
            self.trace.now = now
        super().receive_datagram(data, addr, now)
        if self.trace is not None:
            self._received(now)

    def _received(self, now: float) -> None:
        if isinstance(self._quic_logger, TraceLogger):
            self._quic_logger.flush()
        if self.trace is not None:
            self._watch(now)

    def _open_short(
        self, recv: CryptoContext, space: QuicPacketSpace, data: bytes, mask: bytes
    ) -> tuple[int, bytes] | None:
        opened = super()._open_short(recv, space, data, mask)
        if self.trace is not None and opened is not None:
            number, payload = opened
            if number in space.received_packets:
                self.trace.log(
                    events.PacketDropped(raw=events.RawInfo(len(data)), trigger="duplicate")
                )
            elif (frame := logged.lone_stream_frame(payload)) is not None:
                self.trace.stream_packet_received(number, len(data), *frame)
            else:
                self.trace.log(
                    events.PacketReceived(
                        header=events.PacketHeader("1RTT", number),
                        frames=logged.describe(payload, self._remote_ack_delay_exponent),
                        raw=events.RawInfo(len(data)),
                    )
                )
        return opened

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        if not from_session_ticket:
            self._remote_parameters = data
        super()._parse_transport_parameters(data, from_session_ticket)

    def handle_timer(self, now: float) -> None:
        if self.trace is not None:
            self.trace.now = now
        super().handle_timer(now)

    def _update_traffic_key(
        self,
        direction: tls.Direction,
        epoch: tls.Epoch,
        cipher_suite: tls.CipherSuite,
        secret: bytes,
    ) -> None:
        if epoch is tls.Epoch.HANDSHAKE:
            self.group = getattr(self.tls, "group", None)
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)

    # --- state that changes -----------------------------------------------------------------------

    def _trace_lost(
        self, space: QuicPacketSpace, runs: list[tuple[int, int]], largest_acked: int
    ) -> None:
        assert self.trace is not None
        packet_type = next(
            (_SPACES[epoch] for epoch, known in self._spaces.items() if known is space), "unknown"
        )
        for first, stop in runs:
            for number in range(first, stop):
                by_order = number <= largest_acked - PACKET_THRESHOLD
                self.trace.log(
                    events.PacketLost(
                        header=events.PacketHeader(packet_type, number),
                        trigger="reordering_threshold" if by_order else "time_threshold",
                    )
                )

    def _watch(self, now: float) -> None:
        """Write what has changed since the last look."""
        trace = self.trace
        assert trace is not None
        self._trace_agreement()
        loss, rtt = self._loss, self._loss.rtt
        rate = loss.pacer.rate
        metrics: tuple[Any, ...] = (
            _milliseconds(rtt.min) if rtt.initialized else None,
            _milliseconds(rtt.smoothed) if rtt.initialized else None,
            _milliseconds(rtt.latest) if rtt.initialized else None,
            _milliseconds(rtt.variance) if rtt.initialized else None,
            loss.pto_count,
            loss.congestion_window,
            loss.bytes_in_flight,
            loss.controller.ssthresh,
            int(rate * 8) if rate is not None else None,
        )
        if metrics != self._metrics:
            before = self._metrics or (None,) * len(metrics)
            self._metrics = metrics
            changed = [
                new if new != old else None for new, old in zip(metrics, before, strict=True)
            ]
            trace.log(
                events.RecoveryMetricsUpdated(
                    min_rtt=changed[0],
                    smoothed_rtt=changed[1],
                    latest_rtt=changed[2],
                    rtt_variance=changed[3],
                    pto_count=changed[4],
                    congestion_window=changed[5],
                    bytes_in_flight=changed[6],
                    ssthresh=changed[7],
                    pacing_rate=changed[8],
                )
            )
        if trace.base:
            self._watch_state(trace)

    def _watch_state(self, trace: Trace) -> None:
        connection_state = _STATES[self._state]
        if connection_state == "handshake_started" and self._handshake_complete:
            connection_state = "handshake_complete"
        watched = (
            connection_state,
            self._loss.controller.state,
            self._network_paths[0].addr if self._network_paths else None,
            self._max_datagram_size,
            self.ecn.state,
            self.limits.sending.held_back(trace.now),
        )
        before = self._watched or (None,) * len(watched)
        if watched == before:
            return
        self._watched = watched
        state, congestion, path, mtu, ecn, limit = watched
        if state != before[0]:
            trace.log(events.ConnectionStateUpdated(old=before[0], new=state))
        if congestion != before[1]:
            trace.log(events.CongestionStateUpdated(old=before[1], new=congestion))
        if path != before[2] and path is not None:
            trace.log(
                events.TupleAssigned(
                    tuple_id=f"path{self.migrations}", tuple_remote=logged.endpoint_of(path)
                )
            )
        if mtu != before[3]:
            trace.log(events.MtuUpdated(old=before[3], new=mtu))
        if ecn != before[4]:
            trace.log(events.EcnStateUpdated(old=before[4], new=ecn))
        if limit != before[5]:
            trace.log(
                events.DataBlockedUpdated(
                    new="unblocked" if limit is None else "blocked", reason=limit
                )
            )

    def _note_key_update(self) -> None:
        self._key_phase = self.key_phase
        self.key_updates += 1
        if self.trace is not None:
            for side in ("server", "client"):
                self.trace.log(
                    events.KeyUpdated(key_type=f"{side}_1rtt_secret", key_phase=self.key_updates)
                )

    # --- what was agreed --------------------------------------------------------------------------

    @property
    def local_parameters(self) -> QuicTransportParameters:
        """Transport parameters that we sent."""
        return pull_quic_transport_parameters(Buffer(data=self._local_parameters))

    @property
    def remote_parameters(self) -> QuicTransportParameters:
        """Transport parameters of the peer; all unset before they came."""
        return pull_quic_transport_parameters(Buffer(data=self._remote_parameters))

    @property
    def mostly_receives(self) -> bool:
        """Whether more stream data came than went."""
        return self._local_max_data.used > self._remote_max_data_used

    def limited_by(self, now: float) -> Limit | None:
        """What has limited the main direction most of the time that was not idle."""
        limits = self.limits
        return main_limit(limits.received(now) if self.mostly_receives else limits.sent(now))

    @property
    def packets_reordered(self) -> int:
        """Packets that came after one with a higher number (1-RTT ones)."""
        return self._reordered


def _below(sender: Any, highest: int) -> int:
    """Bytes waiting to be sent that were sent before."""
    return sum(
        min(pending.stop, highest) - pending.start
        for pending in sender._pending
        if pending.start < highest
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
