"""Received ACK frames: validated, coalesced within a run, then applied.

Call `receive` per frame and `settle` once after each run of datagrams: until then the newest ACK of
1-RTT packets is pending.
"""

from __future__ import annotations

from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.paths import Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Ack, Epoch
from quicedge.quic.ranges import covers

_DEFAULT_EXPONENT = 3


class AckReceiver:
    """Applies ACK frames to recovery, ECN validation and key updates.

    Invariant: at most one frame is pending, and it covers those it replaced.
    """

    __slots__ = (
        "_counters", "_handshake", "_paths", "_recovery", "_skipper", "exponent", "pending",
    )  # fmt: skip

    def __init__(
        self,
        *,
        recovery: Recovery,
        paths: Paths,
        handshake: Handshake,
        skipper: NumberSkipper,
        counters: ConnectionCounters,
    ) -> None:
        self._recovery = recovery
        self._paths = paths
        self._handshake = handshake
        self._skipper = skipper
        self._counters = counters
        self.exponent = _DEFAULT_EXPONENT
        """The peer's ack_delay_exponent (RFC 9000 section 18.2)."""
        self.pending: tuple[PacketSpace, Ack] | None = None
        """The frame that `settle` is to be called for, and its space."""

    def receive(self, frame: Ack, kind: int, space: PacketSpace, now: float) -> None:
        """Validate an ACK frame; one of 1-RTT packets stays pending until `settle`, or until one
        arrives that does not cover it."""
        ranges = frame.ranges
        is_application = space.epoch is Epoch.ONE_RTT
        skipper = self._skipper
        # RFC 9000 section 13.1: an endpoint SHOULD treat receipt of an acknowledgment for a
        # packet it did not send as a connection error of type PROTOCOL_VIOLATION.
        if ranges[-1][1] > space.next_number or (
            is_application and skipper.skipped and skipper.is_acknowledged(ranges)
        ):
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION, kind, "ACK of a packet that was never sent"
            )
        if space.epoch is not Epoch.INITIAL:
            self._recovery.peer_validated_us = True
        if not is_application:
            self._apply(space, frame, now)
            return
        if self.pending is not None and not covers(ranges, self.pending[1].ranges):
            self.settle(now)
        self.pending = space, frame

    def settle(self, now: float) -> None:
        """Apply the pending frame."""
        if self.pending is not None:
            (space, frame), self.pending = self.pending, None
            self._apply(space, frame, now)
            self._handshake.phases.on_acked(frame.ranges)

    def _apply(self, space: PacketSpace, frame: Ack, now: float) -> None:
        recovery = self._recovery
        largest = space.largest_acked
        recovery.on_ack(frame.ranges, (frame.delay << self.exponent) / 1e6, now, space)
        ecn = self._paths.known[0].ecn
        assert ecn is not None
        lost = recovery.take_newly_lost()
        # RFC 9002 section 7.1: an increase of CE counts is a congestion event.
        advanced = space.largest_acked > largest
        increase = ecn.on_ack(space.epoch, frame.ecn, recovery.newly_acked, advanced)
        if increase:
            self._counters.ecn_ce_reported += increase
            recovery.on_ecn_ce(sent_time=recovery.newest_acked_sent_time, now=now)
        # After the ACK, because an acknowledged mark ends the current flight.
        for epoch, first, stop, sent in lost:
            ecn.on_lost(epoch, [(first, stop, sent)], now)
