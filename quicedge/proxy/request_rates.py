"""Request rates per client address, per network, or per value of a header field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum

from quicedge.config.rates import parse_rate
from quicedge.config.schema import RequestRate
from quicedge.http.message import Request
from quicedge.proxy.shared_rate_limit import FleetCounts
from quicedge.quic.admission import RateTable
from quicedge.quic.prefixes import packed, prefix_of


class _Key(Enum):
    """What requests are counted by; the values are those of `RequestRate.by`."""

    ADDRESS = "address"
    PREFIX = "prefix"
    HEADER = "header"


class _Rule:
    """One rate and whose requests it counts together."""

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
        """Whether it counts by the client's address."""
        return self._by is not _Key.HEADER

    def _key(self, request: Request, host: str) -> bytes | None:
        """Whose request it is; None when this rate does not count it."""
        if self._by is _Key.HEADER:
            value = next((v for n, v in request.fields if n == self._field), None)
            if value is None:
                return None
            # Clients choose the value and its length; the table should not remember either.
            return hashlib.blake2b(value, digest_size=16).digest()
        address = packed(host)  # not empty: `needs_address`
        return prefix_of(address) if self._by is _Key.PREFIX else address


class RequestRates:
    """The request rates of the whole edge, or of one route.

    A worker counts for itself unless there is a `fleet`; `scope` names the route in its store.
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
        """Whether any of them counts by the client's address."""
        return any(rule.needs_address for rule in self._rules)

    def wait(self, request: Request, host: str, now: float) -> float:
        """0 for a request of a client at `host` within every rate; else seconds to wait."""
        for rule in self._rules:
            seconds = rule.wait(request, host, now)
            if seconds:
                return seconds
        return 0.0
