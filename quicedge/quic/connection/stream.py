"""One stream: its receiving and its sending half (RFC 9000 sections 2 and 3)."""

from __future__ import annotations

from quicedge.config.limits import BYTES_PER_GAP
from quicedge.quic.connection.assembler import Assembler, GapBudget
from quicedge.quic.connection.flow_control import ReceiveWindow
from quicedge.quic.connection.priority import CONTROL_RANK, DEFAULT_RANK, Rank
from quicedge.quic.connection.send_buffer import SendBuffer


class FinalSizeError(Exception):
    """The peer changed where a stream ends (RFC 9000 section 4.5)."""


class ReceiveHalf:
    """What the peer sends. It is finished once all was delivered, or a reset came."""

    __slots__ = ("assembler", "final_size", "is_finished", "stop_code", "stop_pending", "window")

    def __init__(self, window: int, gaps: GapBudget) -> None:
        """`window` in bytes; `gaps` are those of all streams of the connection."""
        self.assembler = Assembler(window // BYTES_PER_GAP, gaps)
        self.window = ReceiveWindow(window)
        """Its `used` is the highest offset seen."""
        self.final_size: int | None = None
        self.is_finished = False
        self.stop_code: int | None = None
        self.stop_pending = False

    def check_end(self, end: int, fin: bool) -> None:
        """Data that ends at `end` came; raises FinalSizeError."""
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
        """A reset came; raises FinalSizeError."""
        if self.final_size is not None and final_size != self.final_size:
            raise FinalSizeError("Cannot change final size")
        if final_size < self.window.used:
            raise FinalSizeError("Data received beyond final size")


class SendHalf:
    """What we send. It is finished once the peer acknowledged all of it, or a reset."""

    __slots__ = ("buffer", "is_finished", "limit", "reset_code", "reset_pending")

    def __init__(self, limit: int) -> None:
        self.buffer = SendBuffer()
        self.limit = limit
        """The peer's flow control limit."""
        self.is_finished = False
        self.reset_code: int | None = None
        self.reset_pending = False

    @property
    def is_writable(self) -> bool:
        """Whether data written would still be sent."""
        return self.reset_code is None and self.buffer.fin_offset is None

    def sendable_until(self, credit: int) -> int | None:
        """The offset up to which the first pending range may go; None when nothing may.

        `credit` is how many bytes never sent before the connection lets go.
        """
        buffer = self.buffer
        pending = buffer.pending
        if not pending.starts:
            return buffer.end if buffer.fin_pending else None
        until = min(pending.stops[0], self.limit, buffer.highest + credit)
        return until if until > pending.starts[0] else None

    @property
    def is_flow_blocked(self) -> bool:
        """Whether the stream's own limit holds its first pending byte back."""
        starts = self.buffer.pending.starts
        return bool(starts) and starts[0] >= self.limit


class Stream:
    """A stream; a half that does not exist (unidirectional streams) is None."""

    __slots__ = ("blocked", "id", "prioritized", "rank", "receive", "scheduled", "send")

    def __init__(self, stream_id: int, receive: ReceiveHalf | None, send: SendHalf | None) -> None:
        self.id = stream_id
        self.receive = receive
        self.send = send
        self.blocked = False
        """Whether the peer does not allow so many streams yet."""
        self.scheduled = False
        self.prioritized = False
        """Whether somebody gave it a priority."""
        self.rank: Rank = CONTROL_RANK if stream_id & 2 else DEFAULT_RANK

    @property
    def is_finished(self) -> bool:
        return (self.receive is None or self.receive.is_finished) and (
            self.send is None or self.send.is_finished
        )
