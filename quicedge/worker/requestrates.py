"""How many requests a client may make: by address, by network, or by the value of a field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from quicedge.config.rates import parse_rate
from quicedge.config.schema import RequestRate
from quicedge.http.message import Request
from quicedge.quic.admission import RateTable
from quicedge.quic.prefixes import packed, prefix_of


class _Rule:
    """One rate and whose requests it counts together."""

    __slots__ = ("_by", "_field", "_table")

    def __init__(self, rule: RequestRate) -> None:
        count, seconds = parse_rate(rule.rate)
        self._table = RateTable(count / seconds, burst=count)
        self._by, _, name = rule.by.partition(":")
        self._field = name.lower().encode()

    def allow(self, request: Request, host: str, now: float) -> bool:
        if self._by == "header":
            value = next((v for n, v in request.fields if n == self._field), None)
            # Clients choose the value and its length; the table should not remember either.
            return value is None or self._table.allow(
                hashlib.blake2b(value, digest_size=16).digest(), now
            )
        address = packed(host)
        return self._table.allow(prefix_of(address) if self._by == "prefix" else address, now)


class RequestRates:
    """The request rates of the whole edge, or of one route; a worker counts for itself."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[RequestRate]) -> None:
        self._rules = [_Rule(rule) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def allow(self, request: Request, host: str, now: float) -> bool:
        """Whether the request of a client at `host` is within every rate."""
        return all(rule.allow(request, host, now) for rule in self._rules)
