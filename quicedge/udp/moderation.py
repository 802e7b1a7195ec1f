"""Moderation of reads: a socket with uploads is read once per interval, not at every datagram.

A wake-up costs the same whether it brings one datagram or thirty, so in an upload most of the work
is waking up. Network devices moderate their interrupts for the same reason. Downloads are left
alone: to wait for their acknowledgments would hold back a sender with a small window.
"""

from __future__ import annotations

from quicedge.config.limits import (
    MODERATED_BUFFER_SHARE,
    MODERATED_RATE,
    MODERATION_INTERVAL,
    MODERATION_WINDOW,
)


class Moderation:
    """Decides from the rate at which bytes arrive when a socket is read next.

    Call `pause` after each read.
    """

    __slots__ = ("_highest", "_received", "_since", "is_active")

    def __init__(self, receive_buffer: int) -> None:
        """`receive_buffer`: bytes that the kernel holds for the socket."""
        self.is_active = False
        # What arrives meanwhile must leave room for bursts.
        self._highest = receive_buffer * MODERATED_BUFFER_SHARE / MODERATION_INTERVAL
        self._received = 0
        self._since = 0.0

    def pause(self, received: int, now: float) -> float:
        """Seconds to wait before the next read; 0: read as soon as anything arrives.

        `received`: all bytes that the socket has received so far.
        """
        elapsed = now - self._since
        if elapsed >= MODERATION_WINDOW:
            rate = (received - self._received) / elapsed
            # Half of the rate keeps it on, so that it does not change with every window.
            least = MODERATED_RATE / 2 if self.is_active else MODERATED_RATE
            self.is_active = least <= rate <= self._highest
            self._received, self._since = received, now
        return MODERATION_INTERVAL if self.is_active else 0.0
