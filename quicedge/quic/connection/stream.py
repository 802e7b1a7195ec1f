"""One stream: its receiving and its sending half (RFC 9000 sections 2 and 3)."""

from __future__ import annotations

from quicedge.config.limits import BYTES_PER_GAP
from quicedge.quic.connection.assembler import Assembler, GapBudget
from quicedge.quic.connection.flow_control import ReceiveWindow
from quicedge.quic.connection.send_buffer import SendBuffer
from quicedge.shares.rank import CONTROL_RANK, DEFAULT_RANK, Rank


class FinalSizeError(Exception):
    """The peer changed the final size of a stream (RFC 9000 section 4.5)."""


class ReceiveHalf:
    """The receiving half, finished once all data is delivered or a reset is received."""

    __slots__ = ("assembler", "final_size", "is_finished", "stop_code", "stop_pending", "window")

    def __init__(self, window: int, gaps: GapBudget) -> None:
        """`window` in bytes; `gaps` is shared by all streams of the connection."""
        self.assembler = Assembler(window // BYTES_PER_GAP, gaps)
        self.window = ReceiveWindow(window)
        """Its `used` is the highest offset received."""
        self.final_size: int | None = None
        self.is_finished = False
        self.stop_code: int | None = None
        self.stop_pending = False

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was received and reception was not stopped."""
        return not self.window.used and self.final_size is None and self.stop_code is None

    def check_end(self, end: int, fin: bool) -> None:
        """Check the final size against data that ends at `end`; raises FinalSizeError."""
        final = self.final_size
        if final is not None:
            if end > final:
                raise FinalSizeError("Data received beyond final size")
            if fin and end != final:
                raise FinalSizeError("Cannot change final size")
        if fin:
            if end < self.window.used:
                raise FinalSizeError("Data received beyond final size")
            self.final_size = end

    def check_reset(self, final_size: int) -> None:
        """Check the final size of a reset; raises FinalSizeError."""
        if self.final_size is not None and final_size != self.final_size:
            raise FinalSizeError("Cannot change final size")
        if final_size < self.window.used:
            raise FinalSizeError("Data received beyond final size")


class SendHalf:
    """The sending half, finished once all data or a reset is acknowledged."""

    __slots__ = ("blocked_at", "buffer", "is_finished", "limit", "reset_code", "reset_pending")

    def __init__(self, limit: int) -> None:
        self.buffer = SendBuffer()
        self.limit = limit
        """The peer's flow control limit."""
        self.blocked_at = -1
        """The limit that STREAM_DATA_BLOCKED last reported."""
        self.is_finished = False
        self.reset_code: int | None = None
        self.reset_pending = False

    @property
    def is_writable(self) -> bool:
        """Whether data written would still be sent."""
        return self.reset_code is None and self.buffer.fin_offset is None

    @property
    def is_flow_blocked(self) -> bool:
        """Whether the stream's flow-control limit blocks its first pending byte."""
        pending = self.buffer.pending
        return pending is not None and pending[0] >= self.limit


class Stream:
    """A stream; the missing half of a unidirectional stream is None."""

    __slots__ = ("blocked", "id", "prioritized", "rank", "receive", "scheduled", "send")

    def __init__(self, stream_id: int, receive: ReceiveHalf | None, send: SendHalf | None) -> None:
        self.id = stream_id
        self.receive = receive
        self.send = send
        self.blocked = False
        """Whether the peer's stream limit does not cover it yet."""
        self.scheduled = False
        self.prioritized = False
        """Whether its priority was set explicitly."""
        self.rank: Rank = CONTROL_RANK if stream_id & 2 else DEFAULT_RANK

    @property
    def is_finished(self) -> bool:
        return (self.receive is None or self.receive.is_finished) and (
            self.send is None or self.send.is_finished
        )
