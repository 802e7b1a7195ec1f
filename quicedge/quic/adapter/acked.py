"""Which ACKs can be true: the defence against a peer that acknowledges what it has not received.

Such "optimistic" ACKs make a sender faster than its path (CVE-2025-4820). A packet number that was
never sent betrays them, so now and then one is left out on purpose.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, pull_ack_frame

from quicedge.config.limits import SKIP_PACKETS_FIRST, SKIP_PACKETS_MOST, SKIPPED_REMEMBERED
from quicedge.quic.adapter.moving import MovingConnection


class AckCheckingConnection(MovingConnection):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._skipped: deque[int] = deque(maxlen=SKIPPED_REMEMBERED)
        self.packets_skipped = 0
        """Packet numbers left out so far."""
        self._skip_period = SKIP_PACKETS_FIRST
        self._skip_at = random.randrange(1, SKIP_PACKETS_FIRST)

    @property
    def packets_sent(self) -> int:
        # aioquic numbers the packets of all spaces from one counter.
        return self._packet_number - self.packets_skipped

    def _next_number(self) -> int:
        """The number of the next packet; sometimes one is skipped before it."""
        if self._packet_number >= self._skip_at and self._handshake_confirmed:
            self._skipped.append(self._packet_number)
            self._packet_number += 1
            self.packets_skipped += 1
            # Ever more rarely: a connection that lived so long has shown what it is.
            self._skip_period = min(2 * self._skip_period, SKIP_PACKETS_MOST)
            self._skip_at = self._packet_number + random.randrange(1, self._skip_period)
        return self._packet_number

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        try:
            ranges = [(item.start, item.stop) for item in pull_ack_frame(buf)[0]]
        except ValueError:
            ranges = []  # malformed: aioquic says how
        self._check_acked(ranges, frame_type)
        buf.seek(start)
        super()._handle_ack_frame(context, frame_type, buf)

    def _check_acked(self, ranges: list[tuple[int, int]], frame_type: int) -> None:
        # RFC 9000 section 13.1: an endpoint SHOULD treat receipt of an acknowledgment for a
        # packet it did not send as a connection error of type PROTOCOL_VIOLATION.
        if ranges and (
            ranges[-1][1] > self._packet_number
            or (self._skipped and _any_within(self._skipped, ranges))
        ):
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="ACK of a packet that was never sent",
            )


def _any_within(numbers: Iterable[int], ranges: list[tuple[int, int]]) -> bool:
    return any(start <= number < stop for number in numbers for start, stop in ranges)
