"""What a session makes of its client's behaviour: useless work is bounded, then it has to leave."""

from __future__ import annotations

from typing import Protocol

from quicedge.config.limits import DRAIN_NOTICE
from quicedge.downstream.rapid_reset import AbandonedRequests
from quicedge.proxy.gateway import Gateway
from quicedge.shares import Standing
from quicedge.telemetry.outcomes import Refusal

_ABANDONED = "too many requests abandoned"


class Session(Protocol):
    """The session whose client is rated."""

    def drain(self) -> None:
        """Finish running requests, reject new ones."""

    def close_for_abuse(self, reason: str) -> None:
        """Close the connection now, with the protocol's code for excessive load."""


class Conduct:
    """Rates the client of one session by the requests that it abandons and by what its codec or
    transport says.

    A client that has exhausted a budget is sent away gracefully: after an abrupt close it would
    resend requests whose outcome it cannot know. A hostile one is disconnected.
    """

    __slots__ = (
        "_abandoned", "_gateway", "_session", "completed", "is_abusive", "leave_from", "reason",
    )  # fmt: skip

    def __init__(self, session: Session, gateway: Gateway, max_streams: int) -> None:
        self._session = session
        self._gateway = gateway
        self._abandoned = AbandonedRequests(max_streams, gateway.now())
        self.completed = self._abandoned.completed
        """A request was completed."""
        self.is_abusive = False
        self.reason: str | None = None
        """Why the client has to leave, once it does."""
        self.leave_from = 0.0
        """When the connection of a client that has to leave may be closed at the earliest."""

    def cancelled(self, lifetime: float) -> None:
        """The client cancelled a request before its response, `lifetime` seconds after its head."""
        self._act_on(self._abandoned.cancelled(lifetime, self._gateway.now()))

    def refused(self) -> None:
        """A request was malformed, or was sent after GOAWAY."""
        self._act_on(self._abandoned.refused(self._gateway.now()))

    def end(self) -> None:
        """The connection is lost: let go of the session. Only `completed` may follow."""
        del self._session

    def _act_on(self, standing: Standing) -> None:
        if standing is Standing.EXHAUSTED:
            self.exhausted(_ABANDONED)
        elif standing is Standing.HOSTILE:
            self.note()
            self._session.close_for_abuse(_ABANDONED)

    def exhausted(self, reason: str) -> None:
        """A budget is exhausted: refuse new requests, let running ones finish."""
        if self.is_abusive:
            return
        self.note()
        self.reason = reason
        self.leave_from = self._gateway.now() + DRAIN_NOTICE
        self._session.drain()

    def note(self) -> None:
        """Count the connection as abusive, once."""
        if not self.is_abusive:
            self.is_abusive = True
            self._gateway.policy.count(Refusal.ABUSE)
