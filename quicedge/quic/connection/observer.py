"""Writes the events of a connection to its qlog trace.

A connection without a trace has no observer and pays one attribute check per run of packets. The
frame table describes packets after they are built or opened. Metrics and states are compared once
per call of the connection, and logged on change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from quicedge.quic.blocked_time import LimitClock
from quicedge.quic.connection.closing import State
from quicedge.quic.connection.drops import DropReason
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.paths import Paths
from quicedge.quic.connection.recovery import PACKET_THRESHOLD, TIME_THRESHOLD, Recovery
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.ending import Ending
from quicedge.quic.errors import transport_error_name
from quicedge.quic.events import ConnectionTerminated
from quicedge.quic.frames import Epoch, describe, lone_stream_frame
from quicedge.quic.rtt import GRANULARITY
from quicedge.quic.transport_parameters import (
    GREASE_QUIC_BIT,
    TransportParameters,
    unknown_parameters,
)
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace

_PACKET_TYPES = {
    Epoch.INITIAL: "initial",
    Epoch.ZERO_RTT: "0RTT",
    Epoch.HANDSHAKE: "handshake",
    Epoch.ONE_RTT: "1RTT",
}
_STATES = {
    State.FIRST_FLIGHT: "attempted",
    State.CONNECTED: "handshake_started",
    State.CLOSING: "closing",
    State.DRAINING: "draining",
    State.TERMINATED: "closed",
}
_TRIGGERS = {
    Ending.IDLE_TIMEOUT: "idle_timeout",
    Ending.STATELESS_RESET: "stateless_reset",
    Ending.HANDSHAKE_TIMEOUT: "aborted",
    Ending.ABORTED: "aborted",
}
_BY_PEER = (Ending.PEER_CLOSE, Ending.STATELESS_RESET)
_PARAMETERS = frozenset(events.ParametersSet.__struct_fields__)


class Observed(Protocol):
    """The parts of a connection that an observer reads."""

    recovery: Recovery
    handshake: Handshake
    limits: LimitClock
    paths: Paths
    counters: ConnectionCounters

    @property
    def state(self) -> State: ...
    @property
    def handshake_complete(self) -> bool: ...
    @property
    def max_datagram_size(self) -> int: ...


class Observer:
    """Writes events to a trace. Call `open` first, `look` after input and output, `close` last."""

    def __init__(self, trace: Trace, ack_delay_exponent: int) -> None:
        self.trace = trace
        self.local_exponent = ack_delay_exponent
        self.remote_exponent = 3
        self._metrics: tuple[Any, ...] = ()
        self._watched: tuple[Any, ...] = ()
        self._negotiation_logged = False
        self._key_updates = 0

    def open(self, connection: Observed) -> None:
        """Write the opening events of a trace and all values otherwise logged on change."""
        recovery = connection.recovery
        self._metrics = self._watched = ()
        self._negotiation_logged = False
        self.trace.log(
            events.RecoveryParametersSet(
                reordering_threshold=PACKET_THRESHOLD,
                time_threshold=TIME_THRESHOLD,
                timer_granularity=round(GRANULARITY * 1000),
                initial_rtt=recovery.rtt.initial * 1000,
                max_datagram_size=connection.max_datagram_size,
                initial_congestion_window=recovery.controller.initial_window,
            )
        )
        # A trace that starts late begins with the negotiated parameters.
        handshake = connection.handshake
        self._key_updates = handshake.phases.updates
        self._log_negotiation(handshake)
        if handshake.local:
            self.parameters_set("local", handshake.local)
        if handshake.remote_raw:
            self.parameters_set("remote", handshake.remote_raw)

    # --- packets --------------------------------------------------------------------------------

    def packet_sent(
        self, epoch: Epoch, number: int, payload: bytes, size: int, *, mtu_probe: bool = False
    ) -> None:
        self.trace.log(
            events.PacketSent(
                header=events.PacketHeader(_PACKET_TYPES[epoch], number),
                frames=describe(payload, self.local_exponent),
                raw=events.RawInfo(size),
                is_mtu_probe_packet=mtu_probe,
            )
        )

    def run_sent(
        self,
        first: int,
        packets: int,
        stream_id: int,
        start: int,
        end: int,
        chunk: int,
        fin: bool,
        size: int,
        last_size: int,
    ) -> None:
        """Packets from `first` on carry bytes `start` to `end - 1` of a stream, and the end of it
        if `fin`; sizes are on the wire."""
        full = packets - 1
        self.trace.stream_packets_sent(first, full, size, stream_id, start, chunk)
        last = start + full * chunk
        self.trace.stream_packet_sent(first + full, last_size, stream_id, last, end - last, fin)

    def packet_received(self, epoch: Epoch, number: int, payload: bytes, size: int) -> None:
        frame = lone_stream_frame(payload) if epoch is Epoch.ONE_RTT else None
        if frame is not None:
            self.trace.stream_packet_received(
                number, size, frame.stream_id, frame.offset, len(frame.data)
            )
            return
        self.trace.log(
            events.PacketReceived(
                header=events.PacketHeader(_PACKET_TYPES[epoch], number),
                frames=describe(payload, self.remote_exponent),
                raw=events.RawInfo(size),
            )
        )

    def packet_dropped(self, size: int, reason: DropReason) -> None:
        self.trace.log(events.PacketDropped(raw=events.RawInfo(size), trigger=reason.value))

    def packet_buffered(self, size: int) -> None:
        """A packet was deferred until its keys are available."""
        self.trace.log(events.PacketBuffered(raw=events.RawInfo(size), trigger="keys_unavailable"))

    def packets_lost(self, epoch: Epoch, runs: list[tuple[int, int]], largest_acked: int) -> None:
        packet_type = _PACKET_TYPES[epoch]
        for first, stop in runs:
            for number in range(first, stop):
                by_order = number <= largest_acked - PACKET_THRESHOLD
                self.trace.log(
                    events.PacketLost(
                        header=events.PacketHeader(packet_type, number),
                        trigger="reordering_threshold" if by_order else "time_threshold",
                    )
                )

    # --- negotiation ----------------------------------------------------------------------------

    def parameters_set(self, owner: str, encoded: bytes) -> None:
        """Log transport parameters as encoded on the wire."""
        unknown = unknown_parameters(encoded)
        found: dict[str, Any] = {
            "initiator": owner,
            "unknown_parameters": [
                {"id": number, "value": value.hex()}
                for number, value in unknown
                if number != GREASE_QUIC_BIT
            ],
        }
        if any(number == GREASE_QUIC_BIT for number, _ in unknown):
            found["grease_quic_bit"] = True
        for name, value in msgspec.structs.asdict(TransportParameters.decode(encoded)).items():
            if name in _PARAMETERS and value is not None:
                found[name] = value.hex() if isinstance(value, bytes) else value
        self.trace.log(msgspec.convert(found, events.ParametersSet))

    def _log_negotiation(self, handshake: Handshake) -> None:
        """Log once the versions and application protocols offered and chosen.

        Known from the ClientHello, even if negotiation fails.
        """
        facts = handshake.facts
        if facts is None or (facts.alpn_offered is None and facts.alpn is None):
            return
        self._negotiation_logged = True
        remote = handshake.remote.version_information if handshake.remote is not None else None
        ours, theirs = handshake.versions, remote.available if remote is not None else ()
        names = [_identifier(name.encode()) for name in handshake.alpn_protocols]
        offered = [_identifier(name) for name in facts.alpn_offered or ()]
        client = handshake.is_client
        self.trace.log(
            events.VersionInformation(
                client_versions=_hexadecimal(ours if client else theirs),
                server_versions=_hexadecimal(theirs if client else ours),
                chosen_version=f"{handshake.version:08x}",
            )
        )
        self.trace.log(
            events.AlpnInformation(
                client_alpns=(names if client else offered) or None,
                server_alpns=None if client else names,
                chosen_alpn=_identifier(facts.alpn.encode()) if facts.alpn else None,
            )
        )

    def look_at_keys(self, updates: int) -> None:
        """Log a key update since the last call; `updates` counts those of either side."""
        if updates == self._key_updates:
            return
        self._key_updates = updates
        for side in ("server", "client"):
            self.trace.log(events.KeyUpdated(key_type=f"{side}_1rtt_secret", key_phase=updates))

    def closed(self, event: ConnectionTerminated, ending: Ending) -> None:
        """Log termination; the error code only if one endpoint sent it."""
        initiator = "remote" if ending in _BY_PEER else "local"
        if not ending.has_code:
            self.trace.log(
                events.ConnectionClosed(
                    initiator=initiator, reason=event.reason_phrase, trigger=_TRIGGERS[ending]
                )
            )
            return
        code, application = event.error_code, event.frame_type is None
        self.trace.log(
            events.ConnectionClosed(
                initiator=initiator,
                application_error="unknown" if application else None,
                connection_error=None if application else transport_error_name(code),
                error_code=code,
                reason=event.reason_phrase,
                trigger="application" if application or not code else "error",
            )
        )

    # --- metrics and states ---------------------------------------------------------------------

    def look(self, connection: Observed) -> None:
        """Log what has changed since the last call."""
        trace = self.trace
        if not self._negotiation_logged:
            self._log_negotiation(connection.handshake)
        recovery = connection.recovery
        rtt, rate = recovery.rtt, recovery.pacer.rate
        known = rtt.initialized
        metrics: tuple[Any, ...] = (
            _milliseconds(rtt.min) if known else None,
            _milliseconds(rtt.smoothed) if known else None,
            _milliseconds(rtt.latest) if known else None,
            _milliseconds(rtt.variance) if known else None,
            recovery.pto_count,
            recovery.congestion_window,
            recovery.bytes_in_flight,
            recovery.controller.ssthresh,
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
            self._look_at_states(connection)

    def _look_at_states(self, connection: Observed) -> None:
        state = _STATES[connection.state]
        if connection.state is State.CONNECTED and connection.handshake_complete:
            state = "handshake_complete"
        path = connection.paths.known[0] if connection.paths.known else None
        watched = (
            state,
            connection.recovery.controller.state,
            path.address if path is not None else None,
            connection.max_datagram_size,
            path.ecn.state.value if path is not None and path.ecn is not None else None,
            connection.limits.sending.blocked_by(self.trace.now),
        )
        before = self._watched or (None,) * len(watched)
        if watched == before:
            return
        self._watched = watched
        trace = self.trace
        state, congestion, address, mtu, ecn, limit = watched
        if state != before[0]:
            trace.log(events.ConnectionStateUpdated(old=before[0], new=state))
        if congestion != before[1]:
            trace.log(events.CongestionStateUpdated(old=before[1], new=congestion))
        if address != before[2] and address is not None:
            trace.log(
                events.TupleAssigned(
                    tuple_id=f"path{connection.counters.migrations}",
                    tuple_remote=endpoint_of(address),
                )
            )
        if mtu != before[3]:
            trace.log(events.MtuUpdated(old=before[3], new=mtu))
        if ecn != before[4] and ecn is not None:
            trace.log(events.EcnStateUpdated(old=before[4], new=ecn))
        if limit != before[5]:
            trace.log(
                events.DataBlockedUpdated(
                    new="unblocked" if limit is None else "blocked", reason=limit
                )
            )

    def close(self) -> None:
        self.trace.close()


def _hexadecimal(versions: Sequence[int]) -> list[str] | None:
    return [f"{version:08x}" for version in versions] or None


def _identifier(alpn: bytes) -> dict[str, str]:
    """An application protocol as text if printable; GREASE values may be any octets."""
    if alpn.isascii() and (text := alpn.decode("ascii")).isprintable():
        return {"string_value": text}
    return {"byte_value": alpn.hex()}


def endpoint_of(path: Any) -> dict[str, Any]:
    """Remote address of a path as qlog's TupleEndpointInfo."""
    remote = getattr(path, "remote", path)
    family = "v6" if ":" in str(remote[0]) else "v4"
    return {f"ip_{family}": str(remote[0]), f"port_{family}": remote[1]}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
