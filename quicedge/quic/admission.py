"""Admission of new QUIC connections, decided before any state or cryptography is spent."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from quicedge.config.schema import Quic, Retry
from quicedge.shares.connections import AdmissionReason, Connections
from quicedge.shares.prefixes import packed


class Decision(Enum):
    """How to handle the first packet of a new connection."""

    ACCEPT = auto()
    RETRY = auto()
    DROP = auto()
    REFUSE = auto()
    """Close with CONNECTION_REFUSED, so that the client fails over immediately."""


class Verdict(NamedTuple):
    """A decision, with a reason unless it is ACCEPT."""

    decision: Decision
    reason: AdmissionReason | None = None


_ACCEPT = Verdict(Decision.ACCEPT)


class Admission:
    """Applies the rules for new connections.

    A client with a valid token has proved its address: it is sent no Retry, and half-open
    handshakes never exclude it, as many clients may share an address (an office, CGNAT). Others may
    spoof their address, so limits per address answer them with a Retry before refusing them.

    Call `decide` for a first packet, `note_opened` for each accepted connection, then
    `note_handshake_over` and `note_closed` once each. `connections` counts those of other protocols
    too.
    """

    def __init__(self, settings: Quic, connections: Connections) -> None:
        self.connections = connections
        self.settings = settings
        """May be replaced at any time."""
        self.has_left: Callable[[], bool] | None = None
        """Whether others take new connections by now, where any are taken; None: they do not."""
        self._unvalidated = 0
        """Half-open handshakes of clients with an unvalidated address."""

    def decide(self, host: str, *, address_validated: bool, now: float) -> Verdict:
        """Decide about the first packet of a client at `host`."""
        settings, connections = self.settings, self.connections
        if connections.closed is not None:
            return Verdict(Decision.REFUSE, connections.closed)
        if self.has_left is not None and self.has_left():
            return Verdict(Decision.REFUSE, AdmissionReason.DRAINING)
        address = packed(host)
        if not connections.permits(address):
            return Verdict(Decision.DROP, AdmissionReason.DENIED)
        crowded = connections.crowded(address)
        if crowded is not None:
            is_total = crowded is AdmissionReason.CONNECTIONS
            if is_total or address_validated or settings.retry is Retry.OFF:
                return Verdict(Decision.REFUSE, crowded)
            return Verdict(Decision.RETRY, crowded)
        if not address_validated:
            prefix_full = connections.handshakes_crowded(address)
            if settings.retry is Retry.OFF:
                if prefix_full:
                    return Verdict(Decision.REFUSE, AdmissionReason.PREFIX_HALF_OPEN)
                if self._unvalidated >= settings.max_half_open:
                    return Verdict(Decision.DROP, AdmissionReason.HALF_OPEN)
            elif settings.retry is Retry.ALWAYS or self._unvalidated >= settings.retry_threshold:
                return Verdict(Decision.RETRY)
            elif prefix_full:
                return Verdict(Decision.RETRY, AdmissionReason.PREFIX_HALF_OPEN)
        too_fast = connections.too_fast(address, now)
        return _ACCEPT if too_fast is None else Verdict(Decision.DROP, too_fast)

    # --- counts ---------------------------------------------------------------------------------

    def note_opened(self, host: str, *, address_validated: bool = False) -> None:
        """A connection from `host` was accepted."""
        self.connections.note_opened(packed(host))
        self._unvalidated += not address_validated

    def note_handshake_over(self, host: str, *, address_validated: bool = False) -> None:
        """Its handshake completed or failed; same arguments as for `note_opened`."""
        self.connections.note_handshake_over(packed(host))
        self._unvalidated -= not address_validated

    def note_closed(self, host: str) -> None:
        """The connection is gone."""
        self.connections.note_closed(packed(host))
