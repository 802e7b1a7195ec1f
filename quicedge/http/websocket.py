"""The frames of a WebSocket (RFC 6455 section 5), as far as an intermediary needs to see them.

The edge passes bytes through. It only follows where frames begin, to know how a connection was
closed and to insert a Close frame of its own between two frames.
"""

from __future__ import annotations

from quicedge.config.limits import TUNNEL_FRAMES_PER_READ

GOING_AWAY = 1001
"""An endpoint is going away, such as a server going down (RFC 6455 section 7.4.1)."""
NO_STATUS = 1005
"""A Close frame without a code; never sent."""

_CLOSE = 0x8
_MASKED = 0x80
_ALL = 1 << 64
"""More than any frame."""


def close_frame(code: int) -> bytes:
    """A Close frame as servers send it: not masked, without a reason."""
    return b"\x88\x02" + code.to_bytes(2, "big")


class FrameFollower:
    """Follows the frames of one direction.

    Frames that are far smaller than messages of people or programs cost more to follow than they
    are worth: more than TUNNEL_FRAMES_PER_READ in one read, and the rest is no longer followed.
    """

    __slots__ = ("_head", "_left", "close_code")

    def __init__(self) -> None:
        self._head = b""
        """The incomplete header of a frame."""
        self._left = 0
        """Bytes of the current frame still to come."""
        self.close_code: int | None = None
        """The code of the Close frame; None until there was one."""

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._left and not self._head

    @property
    def is_lost(self) -> bool:
        """Whether frames are no longer followed."""
        return self._left > _ALL // 2 and self.close_code is None

    def follow(self, data: bytes, *, to_boundary: bool = False) -> int:
        """Follow the next bytes; returns how many belong to what was followed.

        `to_boundary`: only to the end of the current frame.
        """
        end = len(data)
        if self._left > end:
            self._left -= end
            return end
        at, self._left = self._left, 0
        before = len(self._head)
        if before:
            data = self._head + data
            end += before
            self._head = b""
        most = TUNNEL_FRAMES_PER_READ
        while at < end:
            if to_boundary and at:
                return at - before
            if end - at < 2:
                self._head = data[at:]
                break
            size = data[at + 1]
            content = at + 2
            if size & _MASKED:
                size &= 0x7F
                content += 4
            if size > 125:
                width = 2 if size == 126 else 8
                if end - at < 2 + width:
                    self._head = data[at:]
                    break
                size = int.from_bytes(data[at + 2 : at + 2 + width], "big")
                content += width
            elif data[at] & 0xF == _CLOSE:
                if end < content + min(size, 2):
                    self._head = data[at:]
                    break
                self._closed(data, at, content, size)
                break
            at = content + size
            most -= 1
            if not most:
                at = _ALL
        if at > end:
            self._left = at - end
        return end - before

    def _closed(self, data: bytes, at: int, content: int, size: int) -> None:
        """A Close frame came: nothing that follows matters (RFC 6455 section 5.5.1)."""
        self._left = _ALL
        if size < 2:
            self.close_code = NO_STATUS
            return
        code = int.from_bytes(data[content : content + 2], "big")
        if data[at + 1] & _MASKED:
            code ^= int.from_bytes(data[content - 4 : content - 2], "big")
        self.close_code = code
