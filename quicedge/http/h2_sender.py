"""The sending half of an HTTP/2 connection: frames, flow control and the streams' turns."""

from __future__ import annotations

from collections.abc import Sequence

from quicedge.config import limits
from quicedge.http.h2_frames import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    SMALLEST_MAX_FRAME,
    Flag,
    FrameType,
    frame_header,
    header_frames,
    reset_frame,
)
from quicedge.http.h2_types import H2Stream
from quicedge.http.hpack import FieldEncoder
from quicedge.http.message import Field
from quicedge.shares import WorkBudget
from quicedge.shares.scheduler import Scheduler

_HEAD, _HEAD_AND_END = int(Flag.END_HEADERS), int(Flag.END_HEADERS | Flag.END_STREAM)
_HEADERS, _DATA = int(FrameType.HEADERS), int(FrameType.DATA)
_TURN = 64 * 1024
"""Bytes that a stream sends before the next of equal rank gets its turn."""


class Sender:
    """Collects the output of one turn of the loop.

    Control frames and field sections are output in the order in which they are written, because
    HPACK depends on it. Content follows by priority as far as flow control and the caller allow,
    and with the content the end of its stream.

    Invariant: a stream with unsent content is in `_new`, in the scheduler, or held back by its
    own window.
    """

    __slots__ = (
        "_budget", "_encoder", "_new", "_out", "_scheduler", "_turn", "finished", "initial_window",
        "max_frame", "max_section", "unsent", "window",
    )  # fmt: skip

    def __init__(self, budget: WorkBudget) -> None:
        self._budget = budget
        """What the client may send of frames without content: sending content adds to it."""
        self._encoder = FieldEncoder()
        self._out: list[bytes | memoryview] = []
        self._turn = 0
        self._new: list[H2Stream] = []
        """Streams that were written to in this turn."""
        self._scheduler: Scheduler[H2Stream] = Scheduler()
        self.window = DEFAULT_WINDOW
        """Bytes of content that we may send on the connection."""
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = SMALLEST_MAX_FRAME
        self.max_section: int | None = None
        """What the client accepts of a field section, if it has said so."""
        self.unsent = 0
        """Bytes of content that wait, of all streams."""
        self.finished: list[H2Stream] = []
        """Streams whose response was completely output; the owner empties the list."""

    @property
    def has_output(self) -> bool:
        """Whether `poll` with room would return anything."""
        return bool(self._out or self._new or (self._scheduler and self.window > 0))

    @property
    def has_turn(self) -> bool:
        """Whether content waits for nothing but its turn."""
        return bool(self._scheduler) and self.window > 0

    # --- from the application -------------------------------------------------------------------

    def control(self, frame: bytes) -> None:
        """Output a frame."""
        self._out.append(frame)

    def headers(self, stream: H2Stream, fields: Sequence[Field], end: bool) -> None:
        """Output a field section."""
        block = self._encoder.encode(fields)
        out = self._out
        size = len(block)
        if size <= self.max_frame:
            stream.head_at = len(out)
            stream.head_turn = self._turn
            flags = _HEAD_AND_END if end else _HEAD
            out.append(frame_header(_HEADERS, flags, stream.id, size))
            out.append(block)
        else:
            out += header_frames(stream.id, block, end, self.max_frame)
        if end:
            self._finish(stream)

    def data(self, stream: H2Stream, data: bytes) -> None:
        """Let content wait for its turn."""
        size = len(data)
        stream.pending.append(data)
        stream.unsent += size
        self.unsent += size
        if not (stream.is_new or stream.scheduled):
            stream.is_new = True
            self._new.append(stream)

    def end(self, stream: H2Stream, trailers: Sequence[Field]) -> None:
        """No content follows; the end is output with the last of it."""
        if not trailers and not stream.unsent and stream.head_turn == self._turn:
            # The head is still here: it ends the stream.
            at = stream.head_at
            size = len(self._out[at + 1])
            self._out[at] = frame_header(_HEADERS, _HEAD_AND_END, stream.id, size)
            self._finish(stream)
            return
        stream.ending = True
        stream.trailers = trailers
        if not (stream.is_new or stream.scheduled or stream.unsent):
            stream.is_new = True
            self._new.append(stream)

    def discard(self, stream: H2Stream) -> None:
        """The stream is reset: forget what waits."""
        stream.local_open = False
        self._scheduler.remove(stream)
        self.unsent -= stream.unsent
        stream.unsent = stream.offset = 0
        stream.pending.clear()

    def use_table(self, size: int) -> None:
        """The client's HPACK decoder keeps a table of `size` bytes."""
        self._encoder.use_table(size)

    # --- flow control and priority --------------------------------------------------------------

    def widen(self, increment: int) -> bool:
        """Add to the window of the connection; False if it overflows."""
        self.window += increment
        return self.window <= MAX_WINDOW

    def widen_stream(self, stream: H2Stream, increment: int) -> bool:
        """Add to the window of a stream, or take from it; False if it overflows."""
        stream.window += increment
        if stream.window > MAX_WINDOW:
            return False
        if stream.window > 0:
            if stream.unsent and not stream.is_new:
                self._scheduler.add(stream)
        else:
            self._scheduler.remove(stream)
        return True

    def rerank(self, stream: H2Stream, rank: tuple[int, bool, int]) -> None:
        """Change the priority of a stream."""
        self._scheduler.rerank(stream, rank)

    # --- output -----------------------------------------------------------------------------------

    def poll(self, room: int) -> list[bytes | memoryview]:
        """The output of this turn, with up to `room` bytes of content."""
        if self._new:
            self._send_new(room)
        if self._scheduler and room > 0:
            self._send_scheduled(room)
        out = self._out
        if out:
            self._out = []
            self._turn += 1
        return out

    def _send_new(self, room: int) -> None:
        new, self._new = self._new, []
        # If everything fits, nobody has to wait: its order does not matter.
        all_fit = not self._scheduler and self.unsent <= room and self.unsent <= self.window
        for stream in new:
            stream.is_new = False
            if not stream.local_open:
                continue
            if all_fit or not stream.unsent:
                self._send(stream, room)
            elif stream.window > 0:
                self._scheduler.add(stream)

    def _send_scheduled(self, room: int) -> None:
        scheduler = self._scheduler
        while scheduler and room > 0 and self.window > 0:
            stream = scheduler.first
            room -= self._send(stream, min(room, _TURN))
            if stream.unsent and stream.window > 0:
                scheduler.rotate(stream)
            else:
                scheduler.remove(stream)

    def _send(self, stream: H2Stream, room: int) -> int:
        """Output content of a stream, and its end if nothing is left; returns bytes of content."""
        out = self._out
        size = stream.unsent
        is_last = False
        if size:
            allowed = min(stream.window, self.window)
            if size > allowed:
                size = allowed
                by_window = allowed <= room
            else:
                by_window = False
            if size > room:
                size = room
            if size <= 0:
                return 0
            stream.unsent -= size
            self.unsent -= size
            stream.window -= size
            self.window -= size
            stream.sent += size
            is_last = stream.ending and not stream.unsent and not stream.trailers
            if by_window and size < limits.H2_OVERHEAD_PER_DATA * limits.H2_BYTES_PER_UPDATE:
                self._budget.earn(size / limits.H2_BYTES_PER_UPDATE)
            else:
                self._budget.earn(limits.H2_OVERHEAD_PER_DATA * (1 + size // self.max_frame))
            pending = stream.pending
            if size == len(pending[0]) and size <= self.max_frame and not stream.offset:
                out.append(frame_header(_DATA, is_last, stream.id, size))
                out.append(pending.popleft())
            else:
                self._cut(stream, size, is_last)
        if stream.ending and not stream.unsent:
            if stream.trailers:
                block = self._encoder.encode(stream.trailers)
                out += header_frames(stream.id, block, True, self.max_frame)
            elif not is_last:
                out.append(frame_header(_DATA, Flag.END_STREAM, stream.id, 0))
            self._finish(stream)
        return size

    def _cut(self, stream: H2Stream, size: int, is_last: bool) -> None:
        """Output `size` bytes of content in as few frames as possible, without copying them."""
        out, pending, most = self._out, stream.pending, self.max_frame
        offset = stream.offset
        while size:
            length = size if size < most else most
            size -= length
            out.append(frame_header(_DATA, is_last and not size, stream.id, length))
            while length:
                piece = pending[0]
                available = len(piece) - offset
                if available <= length:
                    out.append(memoryview(piece)[offset:] if offset else piece)
                    pending.popleft()
                    length -= available
                    offset = 0
                else:
                    out.append(memoryview(piece)[offset : offset + length])
                    offset += length
                    length = 0
        stream.offset = offset

    def _finish(self, stream: H2Stream) -> None:
        stream.local_open = False
        if stream.stop_code and not stream.remote_open:
            self._out.append(reset_frame(stream.id, stream.stop_code))
        self.finished.append(stream)
