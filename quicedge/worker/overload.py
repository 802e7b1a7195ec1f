"""Overload protection: slow clients, stalled requests and scarce memory."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable

from quicedge.config.schema import Config
from quicedge.downstream.session import Session
from quicedge.http.errors import H3ErrorCode
from quicedge.proxy.policy import Policy
from quicedge.quic.admission import Admission
from quicedge.shares.connections import AdmissionReason, ConnectionRules, Connections
from quicedge.shares.prefixes import AccessList
from quicedge.telemetry.outcomes import Refusal
from quicedge.worker.memory import MemoryBudget, default_budget


def connection_rules(config: Config) -> ConnectionRules:
    """The limits of a configuration on connections of all protocols."""
    limits = config.limits
    return ConnectionRules(
        max_connections=limits.max_connections,
        max_connections_per_address=limits.max_connections_per_address,
        max_connections_per_prefix=limits.max_connections_per_prefix,
        max_half_open_per_prefix=limits.max_half_open_per_prefix,
        handshakes_per_second=limits.handshakes_per_second,
        handshakes_per_second_per_prefix=limits.handshakes_per_second_per_prefix,
        access=AccessList(limits.allow, limits.deny),
    )


def memory_budget(config: Config) -> int:
    """The memory budget of a worker, in bytes."""
    if config.limits.memory is not None:
        return config.limits.memory
    workers = os.cpu_count() if config.workers == "auto" else config.workers
    return default_budget(workers or 1)


class Overload:
    """Ends requests that make no progress, and refuses new clients while memory is exhausted.

    Call `check` about once per second.
    """

    def __init__(self, config: Config, policy: Policy) -> None:
        self._policy = policy
        self.connections = Connections(connection_rules(config))
        self.admission = Admission(config.quic, self.connections)
        self._memory = MemoryBudget(memory_budget(config))
        self._draining = False
        self._shed: set[Session] = set()
        """Sessions closed for want of memory whose clients have not left yet."""
        self._config = config

    def configure(self, config: Config) -> None:
        """Apply these limits from now on."""
        self._config = config
        self.connections.configure(connection_rules(config))
        self.admission.settings = config.quic
        self._memory.budget = memory_budget(config)

    def drain(self) -> None:
        """Refuse every new client immediately, so that it can go elsewhere."""
        self._draining = True
        self.connections.closed = AdmissionReason.DRAINING

    def leave(self, has_left: Callable[[], bool]) -> None:
        """Refuse clients over QUIC that successors do not take, as they have left their address,
        once `has_left` says that there are successors."""
        self.admission.has_left = has_left

    def check(self, sessions: Iterable[Session], now: float, *, contended: bool) -> None:
        """Check progress deadlines, idle connections and memory.

        `contended`: requests are waiting for origin connections that others hold.
        """
        sessions = list(sessions)
        for session in sessions:
            if session.going_away:
                session.close_if_drained()
            if session.is_busy:
                late = session.timeouts.check(session, self._config.limits, now)
                if late:
                    self._policy.count(Refusal.TOO_SLOW, late)
                self._check_stalls(session, now, contended)
            else:
                session.check_idle(now, self._config.limits.keepalive_timeout)
        surplus = self._memory.check(len(sessions), now)
        self._shed.intersection_update(sessions)
        if surplus:
            left = [session for session in sessions if session not in self._shed]
            heaviest = heapq.nlargest(surplus, left, key=self._weight)
            self._policy.count(Refusal.SHED, len(heaviest))
            self._shed.update(heaviest)
            for session in heaviest:
                session.close(H3ErrorCode.EXCESSIVE_LOAD, "out of memory")
        self._policy.memory_is_full = self._memory.full
        if not self._draining:
            self.connections.closed = AdmissionReason.MEMORY if self._memory.full else None

    def _weight(self, session: Session) -> int:
        """Bytes buffered for a session: responses, and requests not yet taken by origins."""
        return session.memory.account.held + session.unread_bytes

    def _check_stalls(self, session: Session, now: float, contended: bool) -> None:
        session.release_reservations()
        short = session.memory.is_short
        if contended or short:
            session.stalls.check(session, now)
        else:
            session.stalls.forget()
        if short and (cut := session.reset_stalled()):
            self._policy.count(Refusal.STALLED, cut)
        session.check_held(now)
