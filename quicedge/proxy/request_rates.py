"""Request rates per client address, per network, or per value of a header field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum

from quicedge.config.rates import parse_rate
from quicedge.config.schema import RequestRate
from quicedge.http.message import Request
from quicedge.proxy.shared_rate_limit import FleetCounts
from quicedge.shares.prefixes import packed, prefix_of
from quicedge.shares.rates import RateTable


class _Key(Enum):
    """The key that requests are counted by; values as in `RequestRate.by`."""

    ADDRESS = "address"
    PREFIX = "prefix"
    HEADER = "header"


class _Rule:
    """One rate and its counters per key."""

    __slots__ = ("_by", "_field", "_fleet", "_most", "_name", "_seconds", "_table")

    def __init__(self, rule: RequestRate, scope: str, fleet: FleetCounts | None) -> None:
        self._most, self._seconds = parse_rate(rule.rate)
        self._table = RateTable(self._most / self._seconds, burst=self._most)
        by, _, field = rule.by.partition(":")
        self._by = _Key(by)
        self._field = field.lower().encode()
        self._fleet = fleet
        self._name = f"{scope}:{rule.by}:{self._most}:{self._seconds:g}"

    def wait(self, request: Request, host: str, now: float) -> float:
        key = self._key(request, host)
        if key is None:
            return 0.0
        if self._fleet is not None:
            return self._fleet.take(f"{self._name}:{key.hex()}", self._most, self._seconds)
        return 0.0 if self._table.allow(key, now) else self._seconds / self._most

    @property
    def needs_address(self) -> bool:
        """Whether it counts per client address or network."""
        return self._by is not _Key.HEADER

    def _key(self, request: Request, host: str) -> bytes | None:
        """The key of a request; None if the rate does not apply to it."""
        if self._by is _Key.HEADER:
            value = next((v for n, v in request.fields if n == self._field), None)
            if value is None:
                return None
            # Clients choose the value and its length; a digest bounds the size of the table.
            return hashlib.blake2b(value, digest_size=16).digest()
        address = packed(host)  # not empty: `needs_address`
        return prefix_of(address) if self._by is _Key.PREFIX else address


class RequestRates:
    """The request rates of the whole edge, or of one route.

    Each worker counts for itself unless there is a `fleet`; `scope` names the route in its store.
    """

    __slots__ = ("_rules",)

    def __init__(
        self, rules: Iterable[RequestRate], scope: str = "", fleet: FleetCounts | None = None
    ) -> None:
        self._rules = [_Rule(rule, scope, fleet) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    @property
    def needs_address(self) -> bool:
        """Whether any of them counts per client address or network."""
        return any(rule.needs_address for rule in self._rules)

    def wait(self, request: Request, host: str, now: float) -> float:
        """Count a request; returns 0 if it conforms to every rate, else the seconds to wait."""
        for rule in self._rules:
            seconds = rule.wait(request, host, now)
            if seconds:
                return seconds
        return 0.0
