"""The connections of a worker, over all protocols: counted once, limited once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from quicedge.shares.prefixes import AccessList, prefix_of
from quicedge.shares.rates import RateLimit, RateTable


class AdmissionReason(StrEnum):
    """Why a new connection is refused, dropped or sent a Retry; part of the counters' names."""

    DRAINING = "draining"
    MEMORY = "memory"
    DENIED = "denied"
    UNTRUSTED_PROXY = "untrusted_proxy"
    CONNECTIONS = "connections"
    ADDRESS_CONNECTIONS = "address_connections"
    PREFIX_CONNECTIONS = "prefix_connections"
    HALF_OPEN = "half_open"
    PREFIX_HALF_OPEN = "prefix_half_open"
    HANDSHAKE_RATE = "handshake_rate"
    PREFIX_HANDSHAKE_RATE = "prefix_handshake_rate"
    FLOOD = "flood"
    """An established connection's: too many packets without stream data."""


@dataclass(slots=True, kw_only=True)
class ConnectionRules:
    """Limits configured by the operator, per worker. None: unlimited."""

    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_connections_per_prefix: int | None = None
    max_half_open_per_prefix: int | None = None
    """Handshakes in progress per network."""
    handshakes_per_second: float | None = None
    handshakes_per_second_per_prefix: float | None = None
    access: AccessList = field(default_factory=AccessList)


class Connections:
    """Counts the connections of all protocols by address and network, and knows their limits.

    Addresses are packed (`shares.prefixes.packed`). Call `note_opened` for each accepted
    connection, then `note_handshake_over` and `note_closed` once each. Invariant: the tables hold
    only addresses with open connections.
    """

    def __init__(self, rules: ConnectionRules) -> None:
        self.closed: AdmissionReason | None = None
        """Why every new client is refused; None: they are not."""
        self.open = 0
        self.half_open = 0
        """Handshakes in progress."""
        self._addresses: Counter[bytes] = Counter()
        self._prefixes: Counter[bytes] = Counter()
        self._half_open_prefixes: Counter[bytes] = Counter()
        self.configure(rules)

    def configure(self, rules: ConnectionRules) -> None:
        """Replace the rules."""
        self.rules = rules
        rate = rules.handshakes_per_second
        self._rate = RateLimit(rate) if rate is not None else None
        self._prefix_rates = RateTable(rules.handshakes_per_second_per_prefix)

    def __bool__(self) -> bool:
        """Whether any connection or handshake is counted."""
        return bool(
            self.open
            or self.half_open
            or self._addresses
            or self._prefixes
            or self._half_open_prefixes
        )

    def permits(self, address: bytes) -> bool:
        """Whether the access list lets the address in."""
        access = self.rules.access
        return not access or access.permits(address)

    def crowded(self, address: bytes) -> AdmissionReason | None:
        """The limit that one more connection of this address would exceed, if any."""
        rules = self.rules
        if _reached(self.open, rules.max_connections):
            return AdmissionReason.CONNECTIONS
        if _reached(self._addresses[address], rules.max_connections_per_address):
            return AdmissionReason.ADDRESS_CONNECTIONS
        if _reached(self._prefixes[prefix_of(address)], rules.max_connections_per_prefix):
            return AdmissionReason.PREFIX_CONNECTIONS
        return None

    def handshakes_crowded(self, address: bytes) -> bool:
        """Whether the network has as many handshakes in progress as it may."""
        return _reached(
            self._half_open_prefixes[prefix_of(address)], self.rules.max_half_open_per_prefix
        )

    def too_fast(self, address: bytes, now: float) -> AdmissionReason | None:
        """Use up the rates of handshakes for one more; the rate that does not allow it, if any.

        To be asked last, so that only otherwise acceptable clients use them up.
        """
        if self._rate is not None and not self._rate.allow(now):
            return AdmissionReason.HANDSHAKE_RATE
        if not self._prefix_rates.allow(prefix_of(address), now):
            return AdmissionReason.PREFIX_HANDSHAKE_RATE
        return None

    def note_opened(self, address: bytes) -> None:
        """A connection was accepted."""
        prefix = prefix_of(address)
        self.open += 1
        self.half_open += 1
        self._addresses[address] += 1
        self._prefixes[prefix] += 1
        self._half_open_prefixes[prefix] += 1

    def note_handshake_over(self, address: bytes) -> None:
        """Its handshake completed or failed."""
        self.half_open -= 1
        _decrease(self._half_open_prefixes, prefix_of(address))

    def note_closed(self, address: bytes) -> None:
        """The connection is gone."""
        self.open -= 1
        _decrease(self._addresses, address)
        _decrease(self._prefixes, prefix_of(address))


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def _decrease(counts: Counter[bytes], key: bytes) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
