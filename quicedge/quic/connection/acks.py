"""Received ACK frames: validated, coalesced, then applied.

Call `receive` per frame, and `settle` or `settle_or_wait` once after each run of datagrams: until
then the newest ACK of 1-RTT packets is pending. One that waits is applied by the next `settle`, as
of the time when it was received.
"""

from __future__ import annotations

from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.paths import Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.spaces import NumberSkipper, PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Epoch
from quicedge.quic.packet_cipher import AckFields
from quicedge.quic.ranges import covers

_DEFAULT_EXPONENT = 3


class AckReceiver:
    """Applies ACK frames to recovery, ECN validation and key updates.

    Invariant: at most one frame is pending, and it covers those it replaced.
    """

    __slots__ = (
        "_applied", "_counters", "_handshake", "_paths", "_received_at", "_recovery", "_skipper",
        "exponent", "pending",
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
        self.pending: tuple[PacketSpace, AckFields] | None = None
        """The frame that `settle` is to be called for, and its space."""
        self._received_at = 0.0
        self._applied: AckFields | None = None
        """The last frame of 1-RTT packets that was applied."""

    def receive(self, frame: AckFields, space: PacketSpace, now: float) -> None:
        """Validate an ACK frame; one of 1-RTT packets stays pending until it is settled, or until
        one arrives that does not cover it."""
        kind, ranges, _, _ = frame
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
        if self.pending is not None and not covers(ranges, self.pending[1][1]):
            self.settle()
        self.pending = space, frame
        self._received_at = now

    def settle(self) -> None:
        """Apply the pending frame, if any."""
        if self.pending is not None:
            (space, frame), self.pending = self.pending, None
            self._recovery.unsettled = 0
            self._apply(space, frame, self._received_at)
            self._applied = frame
            self._handshake.phases.on_acked(frame[1])

    def settle_or_wait(self) -> None:
        """Apply the pending frame, unless all that it does is make room in the congestion window
        for data that waits for it (`Recovery.is_held`). Such a frame stays pending, and later ones
        that cover it take its place, until data is sent or a timer runs out."""
        if self.pending is None:
            return
        space, frame = self.pending
        recovery, applied = self._recovery, self._applied
        if (
            recovery.is_held
            and applied is not None
            and _extends(frame, applied)
            # Nothing may be declared lost, nothing but runs is in flight, and no probe answered.
            and space.loss_time is None
            and not space.sent
            and not recovery.pto_count
            # HyStart++ counts samples (RFC 9406 section 4.2).
            and not recovery.controller.in_slow_start
        ):
            packets = frame[1][-1][1] - 1 - space.largest_acked
            recovery.unsettled = packets * recovery.controller.max_datagram_size
        else:
            self.settle()

    def _apply(self, space: PacketSpace, frame: AckFields, now: float) -> None:
        _, ranges, delay, counts = frame
        recovery = self._recovery
        largest = space.largest_acked
        recovery.on_ack(ranges, (delay << self.exponent) / 1e6, now, space)
        ecn = self._paths.known[0].ecn
        assert ecn is not None
        lost = recovery.take_newly_lost() if recovery.newly_lost else ()
        # RFC 9002 section 7.1: an increase of CE counts is a congestion event.
        advanced = space.largest_acked > largest
        increase = ecn.on_ack(space.epoch, counts, recovery.newly_acked, advanced)
        if increase:
            self._counters.ecn_ce_reported += increase
            recovery.on_ecn_ce(sent_time=recovery.newest_acked_sent_time, now=now)
        # After the ACK, because an acknowledged mark ends the current flight.
        for epoch, first, stop, sent in lost:
            ecn.on_lost(epoch, [(first, stop, sent)], now)


def _extends(frame: AckFields, older: AckFields) -> bool:
    """Whether all that a frame says more than an older one is that the packets behind arrived."""
    _, ranges, _, ecn = frame
    _, known, _, known_ecn = older
    (start, stop), (known_start, known_stop) = ranges[-1], known[-1]
    # The peer may have stopped to report what it knows us to know.
    if not known_start <= start <= known_stop <= stop or (
        len(ranges) > 1 and ranges[:-1] != known[:-1]
    ):
        return False
    if ecn is None or known_ecn is None:
        return ecn is known_ecn
    return ecn[2] == known_ecn[2]
