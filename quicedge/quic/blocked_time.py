"""How long a live connection was limited by what, by the definition that trace analysis uses."""

from __future__ import annotations

from typing import Final

from quicedge.qlog.blocked_time import Limit, Receiving, Sending

_QUIET: Final = 0.05
"""Seconds without data, at least twice the smoothed RTT, after which a peer is silent."""


class LimitClock:
    """Seconds spent in each state, in both directions.

    Call `turn` after the facts of sending (`sending`) may have changed, and `receives` before those
    of receiving change. Most calls find no change and cost little more than a comparison.
    """

    __slots__ = (
        "_received", "_received_at", "_sent", "_sent_at", "_state", "_stopped", "answering",
        "incoming", "receiving", "sending",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sending = Sending()
        self.receiving = Receiving(_QUIET)
        self.answering: dict[int, None] = {}
        """Streams on which we owe a message."""
        self.incoming: dict[int, None] = {}
        """Streams on which the peer has more to send."""
        self._state = Limit.HANDSHAKE
        self._sent_at: float | None = None
        self._received_at: float | None = None
        self._stopped = False
        self._sent: dict[Limit, float] = {}
        self._received: dict[Limit, float] = {}

    def turn(self, now: float) -> None:
        """The facts of sending hold from now on; pacing blocks until the next call."""
        state = self.sending.state(now)
        if self._sent_at is None:
            self._sent_at, self._state = now, state
        elif state is not self._state:
            self._settle_sent(now)
            self._state = state

    def receives(self, now: float) -> None:
        """The facts of receiving have held until now and are about to change."""
        since = self._received_at
        if since is None:
            self._received_at = now
        elif now > since:
            self._received_at = now
            if not self._stopped:
                for state, start, end in self.receiving.periods(since, now):
                    self._received[state] = self._received.get(state, 0.0) + end - start

    def stop(self, now: float) -> None:
        """The connection ended: nothing limits it any more."""
        self.receives(now)
        self._settle_sent(now)
        self._stopped = True

    def _settle_sent(self, now: float) -> None:
        since = self._sent_at
        if since is not None and now > since:
            self._sent_at = now
            if not self._stopped:
                self._sent[self._state] = self._sent.get(self._state, 0.0) + now - since

    def sent(self, now: float) -> dict[Limit, float]:
        """Seconds until `now`, by what limited sending."""
        self._settle_sent(now)
        return dict(self._sent)

    def received(self, now: float) -> dict[Limit, float]:
        """Seconds until `now`, by what limited receiving."""
        self.receives(now)
        return dict(self._received)


def main_limit(spent: dict[Limit, float]) -> Limit | None:
    """What limited most of the time that was not idle; None if all of it was."""
    busy = {state: seconds for state, seconds in spent.items() if state is not Limit.IDLE}
    return max(busy, key=lambda state: busy[state], default=None)
