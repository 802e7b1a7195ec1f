"""Admission of new QUIC connections, decided before any state or cryptography is spent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, NamedTuple

from quicedge.shares.connections import Connections, Crowded
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
    reason: str = ""


_ACCEPT = Verdict(Decision.ACCEPT)


@dataclass(slots=True, kw_only=True)
class AdmissionRules:
    """Limits that only QUIC has, configured by the operator, per worker."""

    retry: Literal["off", "always", "auto"] = "auto"
    retry_threshold: int
    """Half-open handshakes of unvalidated addresses at which new clients are sent a Retry."""
    max_half_open: int
    """Maximum of such handshakes if `retry` is off."""


class Admission:
    """Applies the rules for new connections.

    A client with a valid token has proved its address: it is sent no Retry, and half-open
    handshakes never exclude it, as many clients may share an address (an office, CGNAT). Others may
    spoof their address, so limits per address answer them with a Retry before refusing them.

    Call `decide` for a first packet, `note_opened` for each accepted connection, then
    `note_handshake_over` and `note_closed` once each. `connections` counts those of other protocols
    too.
    """

    def __init__(self, rules: AdmissionRules, connections: Connections) -> None:
        self.connections = connections
        self.rules = rules
        """May be replaced at any time."""
        self._unvalidated = 0
        """Half-open handshakes of clients with an unvalidated address."""

    def decide(self, host: str, *, address_validated: bool, now: float) -> Verdict:
        """Decide about the first packet of a client at `host`."""
        rules, connections = self.rules, self.connections
        if connections.closed is not None:
            return Verdict(Decision.REFUSE, connections.closed)
        address = packed(host)
        if not connections.permits(address):
            return Verdict(Decision.DROP, "denied")
        crowded = connections.crowded(address)
        if crowded is not None:
            if crowded is Crowded.ALL or address_validated or rules.retry == "off":
                return Verdict(Decision.REFUSE, crowded)
            return Verdict(Decision.RETRY, crowded)
        if not address_validated:
            prefix_full = connections.handshakes_crowded(address)
            if rules.retry == "off":
                if prefix_full:
                    return Verdict(Decision.REFUSE, "prefix_half_open")
                if self._unvalidated >= rules.max_half_open:
                    return Verdict(Decision.DROP, "half_open")
            elif rules.retry == "always" or self._unvalidated >= rules.retry_threshold:
                return Verdict(Decision.RETRY)
            elif prefix_full:
                return Verdict(Decision.RETRY, "prefix_half_open")
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
