"""Packet number spaces (RFC 9000 section 12.3): numbers, ACKs, packets in flight, CRYPTO data.

`NumberSkipper` detects optimistic ACKs: a peer that acknowledges packets it has not received, a
skipped number among them, makes the sender exceed the capacity of its path (CVE-2025-4820).
"""

from __future__ import annotations

from collections.abc import Callable

from quicedge.config.limits import (
    ACK_DELAY,
    LONE_ACK_DELAY,
    MAX_ACK_RANGES,
    MAX_CRYPTO_GAPS,
    SKIP_PACKETS_FIRST,
    SKIP_PACKETS_MOST,
    SKIPPED_REMEMBERED,
)
from quicedge.quic.connection.assembler import Assembler
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.quic.connection.sent_packets import SentPacket
from quicedge.quic.ecn import ECN_INDEX
from quicedge.quic.frames import Epoch, encode_ack
from quicedge.quic.ranges import Ranges


class PacketSpace:
    """State of one packet number space. Times are in seconds.

    For each received packet call `is_duplicate`, process its frames, then `note_received` and, if
    it is ack-eliciting, `want_ack`. `recovery` maintains the fields about sent packets.
    """

    __slots__ = (
        "ack_at", "acks", "crypto_in", "crypto_out", "ecn_received", "eliciting_in_flight",
        "epoch", "expected", "largest_acked", "largest_received", "largest_received_at",
        "last_eliciting_sent", "loss_time", "next_number", "probes", "received", "received_floor",
        "sent", "unacknowledged",
    )  # fmt: skip

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self.crypto_in = Assembler(MAX_CRYPTO_GAPS)
        self.crypto_out = SendBuffer()
        # receiving
        self.expected = 0
        """One more than the largest packet number received."""
        self.largest_received = -1
        self.largest_received_at = 0.0
        self.received = Ranges()
        self.received_floor = 0
        """Packets below it count as received; which of them were is no longer recorded."""
        self.acks = Ranges()
        """Packets to report in the next ACK frame."""
        self.ack_at: float | None = None
        """When an ACK frame is due; None if no ack-eliciting packet is unacknowledged."""
        self.unacknowledged = 0
        """Ack-eliciting 1-RTT packets received since the last ACK."""
        self.ecn_received: list[int] | None = None
        """Packets received with ECT(0), ECT(1) and CE; None if none had a mark."""
        # sending
        self.next_number = 0
        self.largest_acked = -1
        self.sent: dict[int, SentPacket] = {}
        self.eliciting_in_flight = 0
        self.last_eliciting_sent = 0.0
        self.loss_time: float | None = None
        self.probes = 0
        """Probe packets to send regardless of the congestion window (RFC 9002 section 6.2.4)."""

    # --- receiving ------------------------------------------------------------------------------

    def is_duplicate(self, number: int) -> bool:
        return number < self.received_floor or (number < self.expected and number in self.received)

    def note_received(self, first: int, stop: int, now: float) -> int:
        """Packets `first` to `stop - 1` were processed; returns how many of them came after a later
        one."""
        reordered = stop - first if first < self.largest_received else 0
        if stop - 1 > self.largest_received:
            self.largest_received = stop - 1
            self.largest_received_at = now
        if stop > self.expected:
            self.expected = stop
        acks, received = self.acks, self.received
        if acks.stops and acks.stops[-1] == first:
            acks.stops[-1] = stop  # in order, as most are
        else:
            acks.add(first, stop)
            if len(acks.starts) > MAX_ACK_RANGES:
                acks.pop_first()
        if received.stops and received.stops[-1] == first:
            received.stops[-1] = stop
        else:
            received.add(first, stop)
            # RFC 9000 section 13.2.3: packets of discarded ranges count as received.
            if len(received.starts) > MAX_ACK_RANGES:
                self.received_floor = received.pop_first()[1]
        return reordered

    def note_marked(self, codepoint: int, packets: int) -> None:
        """Count processed packets with this ECN codepoint."""
        if self.ecn_received is None:
            self.ecn_received = [0, 0, 0]
        self.ecn_received[ECN_INDEX[codepoint]] += packets

    def want_ack(self, now: float) -> None:
        """Schedule an ACK for an ack-eliciting packet."""
        if self.ack_at is None:
            # RFC 9000 section 13.2.1: Initial and Handshake packets are acknowledged at once.
            self.ack_at = now if self.epoch is not Epoch.ONE_RTT else now + ACK_DELAY

    def want_ack_of(self, packets: int, now: float, *, prompt: bool) -> None:
        """Schedule an ACK for ack-eliciting 1-RTT packets: promptly from the second one on since
        the last ACK, or if `prompt`."""
        self.unacknowledged += packets
        due = now + (ACK_DELAY if prompt or self.unacknowledged > 1 else LONE_ACK_DELAY)
        if self.ack_at is None or due < self.ack_at:
            self.ack_at = due

    def want_ack_of_pings(self, now: float) -> None:
        """Schedule an ACK for packets with a PING beside an ACK: their sender wants to forget what
        it has acknowledged, and nothing waits for that."""
        if self.ack_at is None:
            self.ack_at = now + LONE_ACK_DELAY

    def encode_ack(self, now: float, exponent: int, room: int) -> tuple[bytes, int]:
        """An ACK frame and its number of ranges; clears the ACK timer."""
        delay = max(int((now - self.largest_received_at) * 1e6), 0)
        ecn = self.ecn_received
        self.ack_at = None
        self.unacknowledged = 0
        return encode_ack(
            list(self.acks), delay >> exponent, room, (ecn[0], ecn[1], ecn[2]) if ecn else None
        )

    def on_ack_delivery(self, delivered: bool, largest: int) -> None:
        """Stop reporting packets up to `largest` once an ACK frame of them is acknowledged."""
        if delivered:
            self.acks.subtract(0, largest + 1)


class NumberSkipper:
    """Skips packet numbers at random, with growing intervals: optimistic ACK detection.

    Call `advance` before numbering each 1-RTT packet or run, `is_acknowledged` for each ACK.
    """

    __slots__ = ("_period", "_random", "at", "count", "skipped")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        """`random(n)` returns n random bytes."""
        self._random = random
        self.skipped: list[int] = []
        self.count = 0
        """Numbers skipped so far."""
        self._period = SKIP_PACKETS_FIRST
        self.at = self._draw(SKIP_PACKETS_FIRST)
        """The first number assigned at or above this is skipped."""

    def _draw(self, below: int) -> int:
        return 1 + int.from_bytes(self._random(4), "big") % (below - 1)

    def advance(self, space: PacketSpace) -> None:
        """Skip the next number if it is due."""
        number = space.next_number
        if number >= self.at:
            self.skipped.append(number)
            del self.skipped[:-SKIPPED_REMEMBERED]
            space.next_number = number + 1
            self.count += 1
            self._period = min(2 * self._period, SKIP_PACKETS_MOST)
            self.at = space.next_number + self._draw(self._period)

    def is_acknowledged(self, ranges: list[tuple[int, int]]) -> bool:
        """Whether an ACK covers a skipped number."""
        for start, stop in ranges:
            for number in self.skipped:
                if start <= number < stop:
                    return True
        return False
