"""Moderation of reads: a busy socket is read once per interval, not whenever a datagram arrives.

A wake-up costs the same whether it brings one datagram or thirty, so in a transfer most of the work
is waking up. Network devices moderate their interrupts for the same reason.
"""

from __future__ import annotations

from quicedge.config.limits import (
    MODERATED_BUFFER_SHARE,
    MODERATED_RATE,
    MODERATION_INTERVAL,
    MODERATION_WINDOW,
    UDP_DATAGRAM_MEMORY,
)


class Moderation:
    """Decides from the rate of datagrams in both directions when a socket is read next.

    Call `pause` after each read.
    """

    __slots__ = ("_received", "_sent", "_since", "highest", "is_active")

    def __init__(self, receive_buffer: int) -> None:
        """`receive_buffer`: bytes that the kernel holds for the socket."""
        self.is_active = False
        # What arrives meanwhile must leave room for bursts.
        held = receive_buffer * MODERATED_BUFFER_SHARE / UDP_DATAGRAM_MEMORY
        self.highest = held / MODERATION_INTERVAL
        """Datagrams received per second above which waiting could overflow the buffer."""
        self._received = self._sent = 0
        self._since = 0.0

    def pause(self, received: int, sent: int, now: float) -> float:
        """Seconds to wait before the next read; 0: read as soon as anything arrives.

        `received` and `sent`: all datagrams of the socket so far.
        """
        elapsed = now - self._since
        if elapsed >= MODERATION_WINDOW:
            came = (received - self._received) / elapsed
            rate = came + (sent - self._sent) / elapsed
            # Half of the rate keeps it on, so that it does not change with every window.
            least = MODERATED_RATE / 2 if self.is_active else MODERATED_RATE
            self.is_active = rate >= least and came <= self.highest
            self._received, self._sent, self._since = received, sent, now
        return MODERATION_INTERVAL if self.is_active else 0.0
