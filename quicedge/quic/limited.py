"""For how long what has limited a live connection, by the definition that traces are read by."""

from __future__ import annotations

from typing import Final

from quicedge.qlog.limited import Limit, Receiving, Sending

_QUIET: Final = 0.05
"""Seconds without data, at least twice the smoothed RTT, after which a peer is silent."""


class LimitClock:
    """Seconds spent in each state, both ways."""

    __slots__ = ("_at", "_received", "_sent", "_stopped", "receiving", "sending")

    def __init__(self) -> None:
        self.sending = Sending()
        self.receiving = Receiving(_QUIET)
        self._at: float | None = None
        self._stopped = False
        self._sent: dict[Limit, float] = {}
        self._received: dict[Limit, float] = {}

    def advance(self, now: float) -> None:
        """Account for the time until `now`; the facts that held since are about to change."""
        since = self._at
        if since is not None and now <= since:
            return
        self._at = now
        if since is not None and not self._stopped:
            _add(self._sent, self.sending, since, now)
            _add(self._received, self.receiving, since, now)

    def stop(self) -> None:
        """The connection is over: nothing limits it any more."""
        self._stopped = True

    def sent(self, now: float) -> dict[Limit, float]:
        """Seconds until `now` by what limited sending."""
        self.advance(now)
        return dict(self._sent)

    def received(self, now: float) -> dict[Limit, float]:
        """Seconds until `now` by what limited receiving."""
        self.advance(now)
        return dict(self._received)


def _add(spent: dict[Limit, float], facts: Sending | Receiving, since: float, now: float) -> None:
    for state, start, end in facts.periods(since, now):
        spent[state] = spent.get(state, 0.0) + end - start


def main_limit(spent: dict[Limit, float]) -> Limit | None:
    """What limited most of the time that was not idle; None where all of it was."""
    busy = {state: seconds for state, seconds in spent.items() if state is not Limit.IDLE}
    return max(busy, key=lambda state: busy[state], default=None)
