"""Admission of new connections, decided before any state or cryptography is spent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Literal, NamedTuple, TypeVar

from quicedge.config.limits import MAX_PREFIX_RATES
from quicedge.quic.prefixes import AccessList, packed, prefix_of


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


Reason = TypeVar("Reason", bound=Hashable)
_ACCEPT = Verdict(Decision.ACCEPT)


@dataclass(slots=True, kw_only=True)
class AdmissionRules:
    """Limits configured by the operator, per worker. None: unlimited."""

    retry: Literal["off", "always", "auto"] = "auto"
    retry_threshold: int
    """Half-open handshakes of unvalidated addresses at which new clients are sent a Retry."""
    max_half_open: int
    """Maximum of such handshakes if `retry` is off."""
    max_half_open_per_prefix: int | None = None
    """Half-open handshakes per network at which its new clients are sent a Retry, or refused if
    `retry` is off."""
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_connections_per_prefix: int | None = None
    handshakes_per_second: float | None = None
    handshakes_per_second_per_prefix: float | None = None
    access: AccessList = field(default_factory=AccessList)


class Admission:
    """Applies the rules for new connections, and keeps the counts they need.

    A client with a valid token has proved its address: it is sent no Retry, and half-open
    handshakes never exclude it, as many clients may share an address (an office, CGNAT). Others may
    spoof their address, so limits per address answer them with a Retry before refusing them.

    Call `decide` for a first packet, `note_opened` for each accepted connection, then
    `note_handshake_over` and `note_closed` once each. Invariant: the tables hold only
    addresses with open connections.
    """

    def __init__(self, rules: AdmissionRules) -> None:
        self.closed: Verdict | None = None
        """Verdict for all clients while draining or out of memory; None otherwise."""
        self._addresses: Counter[bytes] = Counter()
        self._prefixes: Counter[bytes] = Counter()
        self._half_open_prefixes: Counter[bytes] = Counter()
        self._connections = 0
        self._half_open = 0
        self._unvalidated = 0
        """Half-open handshakes of clients with an unvalidated address."""
        self.configure(rules)

    def configure(self, rules: AdmissionRules) -> None:
        """Replace the rules."""
        self.rules = rules
        rate = rules.handshakes_per_second
        self._rate = RateLimit(rate) if rate is not None else None
        self._prefix_rates = RateTable(rules.handshakes_per_second_per_prefix)

    @property
    def half_open(self) -> int:
        """Handshakes in progress."""
        return self._half_open

    def decide(self, host: str, *, address_validated: bool, now: float) -> Verdict:
        """Decide about the first packet of a client at `host`."""
        rules = self.rules
        if self.closed is not None:
            return self.closed
        address = packed(host)
        if rules.access and not rules.access.permits(address):
            return Verdict(Decision.DROP, "denied")
        if _reached(self._connections, rules.max_connections):
            return Verdict(Decision.REFUSE, "connections")
        crowded = self._crowded(address)
        if crowded is not None:
            if address_validated or rules.retry == "off":
                return Verdict(Decision.REFUSE, crowded)
            return Verdict(Decision.RETRY, crowded)
        if not address_validated:
            prefix_full = _reached(
                self._half_open_prefixes[prefix_of(address)], rules.max_half_open_per_prefix
            )
            if rules.retry == "off":
                if prefix_full:
                    return Verdict(Decision.REFUSE, "prefix_half_open")
                if self._unvalidated >= rules.max_half_open:
                    return Verdict(Decision.DROP, "half_open")
            elif rules.retry == "always" or self._unvalidated >= rules.retry_threshold:
                return Verdict(Decision.RETRY)
            elif prefix_full:
                return Verdict(Decision.RETRY, "prefix_half_open")
        # Last, so that only otherwise acceptable clients use up the rate.
        if self._rate is not None and not self._rate.allow(now):
            return Verdict(Decision.DROP, "handshake_rate")
        if not self._prefix_rates.allow(prefix_of(address), now):
            return Verdict(Decision.DROP, "prefix_handshake_rate")
        return _ACCEPT

    def _crowded(self, address: bytes) -> str | None:
        """The limit per address or network that is reached, if any."""
        rules = self.rules
        prefix = prefix_of(address)
        if _reached(self._addresses[address], rules.max_connections_per_address):
            return "address_connections"
        if _reached(self._prefixes[prefix], rules.max_connections_per_prefix):
            return "prefix_connections"
        return None

    # --- counts ---------------------------------------------------------------------------------

    def note_opened(self, host: str, *, address_validated: bool = False) -> None:
        """A connection from `host` was accepted."""
        address = packed(host)
        prefix = prefix_of(address)
        self._connections += 1
        self._half_open += 1
        self._unvalidated += not address_validated
        self._addresses[address] += 1
        self._prefixes[prefix] += 1
        self._half_open_prefixes[prefix] += 1

    def note_handshake_over(self, host: str, *, address_validated: bool = False) -> None:
        """Its handshake completed or failed; same arguments as for `note_opened`."""
        self._half_open -= 1
        self._unvalidated -= not address_validated
        _decrease(self._half_open_prefixes, prefix_of(packed(host)))

    def note_closed(self, host: str) -> None:
        """The connection is gone."""
        address = packed(host)
        self._connections -= 1
        _decrease(self._addresses, address)
        _decrease(self._prefixes, prefix_of(address))


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def _decrease(counts: Counter[bytes], key: bytes) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


class RateLimit:
    """A token bucket: `rate` actions per second, `burst` at once (default: one second's worth)."""

    __slots__ = ("_burst", "_level", "_rate", "_updated")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = self._level = max(rate if burst is None else burst, 1.0)
        self._updated = 0.0

    def allow(self, now: float) -> bool:
        self._level = min(self._burst, self._level + (now - self._updated) * self._rate)
        self._updated = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class RateTable:
    """A token bucket a key, for the `MAX_PREFIX_RATES` keys seen last. None: no limit."""

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate: float | None, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[bytes, RateLimit] = OrderedDict()

    def allow(self, key: bytes, now: float) -> bool:
        if self._rate is None:
            return True
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = RateLimit(self._rate, self._burst)
            if len(self._buckets) > MAX_PREFIX_RATES:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.allow(now)


class BoundedLog(Generic[Reason]):
    """Says how often something happened, at most every `interval` seconds a reason."""

    __slots__ = ("_counts", "_interval", "_said", "_say")

    def __init__(self, say: Callable[[Reason, int], None], interval: float) -> None:
        self._say = say
        self._interval = interval
        self._said: dict[Reason, float] = {}
        self._counts: Counter[Reason] = Counter()

    def note(self, reason: Reason, now: float) -> None:
        """It happened; `reason` is one of few."""
        self._counts[reason] += 1
        if now >= self._said.get(reason, float("-inf")) + self._interval:
            self._said[reason] = now
            self._say(reason, self._counts.pop(reason))
