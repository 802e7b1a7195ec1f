"""The idle timeout (RFC 9000 section 10.1)."""

from __future__ import annotations


class IdleTimer:
    """Restarts on every processed packet, and on the first ack-eliciting packet sent after it.

    `limit` applies to restarts after it; the owner terminates the connection at `deadline`.
    """

    __slots__ = ("_timeout", "deadline", "sent_since")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.sent_since = False
        """Whether an ack-eliciting packet was sent after the last one received."""
        self.deadline: float | None = None
        """None until the first packet is received or sent."""

    def limit(self, timeout: float) -> None:
        """Apply the peer's timeout; the smaller one is effective."""
        self._timeout = min(self._timeout, timeout)

    def on_received(self, now: float, pto: float) -> None:
        # RFC 9000 section 10.1: at least three times the PTO.
        timeout, least = self._timeout, 3 * pto
        self.deadline = now + (timeout if timeout > least else least)
        self.sent_since = False

    def on_sent_eliciting(self, now: float, pto: float) -> None:
        if not self.sent_since:
            self.sent_since = True
            self.deadline = now + max(self._timeout, 3 * pto)
