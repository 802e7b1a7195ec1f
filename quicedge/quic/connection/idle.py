"""The idle timeout (RFC 9000 section 10.1)."""

from __future__ import annotations


class IdleTimer:
    """Restarts on every processed packet, and on the first ack-eliciting packet sent after it.

    The owner terminates the connection at `deadline`, which is computed when it is asked for: most
    restarts are followed by another one.
    """

    __slots__ = ("restarted_at", "sent_since", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        """Seconds; the smaller one of both ends."""
        self.sent_since = False
        """Whether an ack-eliciting packet was sent after the last one received."""
        self.restarted_at: float | None = None
        """None until the first packet is received or sent."""

    def limit(self, timeout: float) -> None:
        """Apply the peer's timeout; the smaller one is effective."""
        self.timeout = min(self.timeout, timeout)

    def on_received(self, now: float) -> None:
        self.restarted_at = now
        self.sent_since = False

    def on_sent_eliciting(self, now: float) -> None:
        if not self.sent_since:
            self.sent_since = True
            self.restarted_at = now

    def deadline(self, pto: float) -> float | None:
        """When the timeout expires, given the current PTO; None while it does not run."""
        since = self.restarted_at
        if since is None:
            return None
        # RFC 9000 section 10.1: at least three times the PTO.
        timeout, least = self.timeout, 3 * pto
        return since + (timeout if timeout > least else least)
