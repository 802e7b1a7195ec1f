"""Explicit congestion notification (RFC 9000 section 13.4, RFC 3168)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from quicedge.config.limits import (
    ECN_BLACK_HOLE_FLIGHTS,
    ECN_MARKED_RUNS,
    ECN_TESTING_PACKETS,
    ECN_TESTING_TIMEOUTS,
)
from quicedge.quic.selectiveloss import SelectiveLoss

NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
"""Codepoints of the IP header's ECN field."""

ECN_INDEX = {ECT_0: 0, ECT_1: 1, CE: 2}
"""The place of each mark in counts."""

Counts = tuple[int, int, int]
"""ECT(0), ECT(1) and CE counts, as in ACK frames (RFC 9000 section 19.3.2)."""


class EcnState(Enum):
    """State of ECN validation of one path (RFC 9000 appendix A.4). Values are qlog's."""

    TESTING = "testing"
    UNKNOWN = "unknown"
    CAPABLE = "capable"
    FAILED = "failed"


class EcnValidation:
    """ECN validation of one path (RFC 9000 section 13.4.2 and appendix A.4).

    Call `follow` when the path becomes active after another one. Mark packets with `codepoint` and
    report marked ones to `on_sent` before `on_ack` or `on_lost`. FAILED is final.
    """

    def __init__(self) -> None:
        self.state = EcnState.TESTING
        self._marked: dict[Any, list[tuple[int, int]]] = {}
        self._swallowed = SelectiveLoss(ECN_BLACK_HOLE_FLIGHTS)
        self._marked_on_path = 0
        self.marked_total = 0
        self.seen: dict[Any, Counts] = {}

    def follow(self, previous: EcnValidation) -> None:
        """Continue with the peer's counts of the previously active path."""
        self.seen = previous.seen
        self.marked_total = previous.marked_total
        self._marked.clear()
        self._swallowed.reset()

    def codepoint(self, probe_timeouts: int) -> int:
        """ECN codepoint of the next packets, after `probe_timeouts` consecutive PTOs."""
        if self.state is EcnState.TESTING and (
            self._marked_on_path >= ECN_TESTING_PACKETS or probe_timeouts >= ECN_TESTING_TIMEOUTS
        ):
            self.state = EcnState.UNKNOWN
        return ECT_0 if self.state in (EcnState.TESTING, EcnState.CAPABLE) else NOT_ECT

    def on_sent(self, space: Any, first: int, stop: int) -> None:
        """Packets `first` to `stop - 1` of a packet number space were sent marked."""
        self._marked_on_path += stop - first
        self.marked_total += stop - first
        marked = self._marked.setdefault(space, [])
        if marked and marked[-1][1] == first:
            marked[-1] = (marked[-1][0], stop)
        else:
            marked.append((first, stop))
            # Forgotten marks make the comparison with ACK counts more lenient, never stricter.
            del marked[:-ECN_MARKED_RUNS]

    def marked_among(self, space: Any, spans: Iterable[tuple[int, int]]) -> int:
        """Number of packets in the spans (`stop` exclusive) that were marked on this path."""
        marked = self._marked.get(space)
        count = 0
        if marked:
            last_first, last_stop = marked[-1]
            for first, stop in spans:
                if last_first <= first and stop <= last_stop:
                    count += stop - first  # mostly, all packets are marked
                    continue
                for marked_first, marked_stop in reversed(marked):
                    if marked_stop <= first:
                        break
                    if stop > marked_first:
                        count += min(stop, marked_stop) - max(first, marked_first)
        return count

    def on_lost(self, space: Any, lost: Iterable[tuple[int, int, float]], now: float) -> None:
        """Packets were declared lost: numbers `first` to `stop - 1`, and when they were sent.

        RFC 9000 section 13.4.2: if all packets marked with non-zero ECN codepoints are lost, an
        endpoint can disable marking on the assumption that the marking caused the loss.
        """
        if self.state is EcnState.FAILED:
            return
        marked = [sent for first, stop, sent in lost if self.marked_among(space, [(first, stop)])]
        if marked:
            self._swallowed.on_lost(max(marked), now)
            if self._swallowed.is_black_hole:
                self.state = EcnState.FAILED

    def on_ack(
        self, space: Any, counts: Counts | None, acked: Iterable[tuple[int, int]], advanced: bool
    ) -> int:
        """Validate the ECN counts of an ACK frame; returns the increase of its CE count.

        `acked`: newly acknowledged packets; `advanced`: whether the largest acknowledged packet
        number increased.
        """
        if self.state is EcnState.FAILED:
            return 0
        marked = self.marked_among(space, acked)
        if marked:
            self._swallowed.on_acked()
        if counts is None:
            # RFC 9000 section 13.4.2.1: if an ACK frame newly acknowledges a packet that was sent
            # with ECT, validation fails if the counts are not present.
            if marked:
                self.state = EcnState.FAILED
            return 0
        # The same: an endpoint MUST NOT fail validation for an ACK frame that does not increase
        # the largest acknowledged packet number.
        if not advanced:
            return 0
        seen = self.seen.get(space, (0, 0, 0))
        increase = counts[0] + counts[2] - seen[0] - seen[2]
        if (
            increase < marked
            or counts[0] < seen[0]
            or counts[2] < seen[2]
            or counts[1]  # we never send ECT(1)
            or counts[0] + counts[2] > self.marked_total
        ):
            self.state = EcnState.FAILED
            return 0
        self.seen[space] = counts
        if marked:
            self.state = EcnState.CAPABLE
        return counts[2] - seen[2]
