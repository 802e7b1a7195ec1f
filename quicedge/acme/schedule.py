"""What to order, when and from which issuer. No I/O, no clock: time and chance are parameters.

A name is tried with one issuer after the other; once all have failed it, it waits, twice as long
each time. An issuer that does not answer or refuses the account waits by itself, and costs no name
its turn. All that would let a restart ask again too early is in `HostRecord`, which is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from quicedge.acme.failure import Cause, Failure
from quicedge.acme.lifetime import Lifetime, Window
from quicedge.config.acmelimits import (
    BACKOFF_JITTER,
    BACKOFF_MAX,
    BACKOFF_MIN,
    BACKOFF_SHARE,
    ISSUER_DOWN_MAX,
    ISSUER_DOWN_MIN,
    ISSUER_REFUSES,
    ORDERS_BURST,
    ORDERS_PER_SECOND,
    RENEW_AGE_LEAST,
    RENEW_AGE_MIN,
    RENEWAL_INFO_INTERVAL,
    RENEWAL_INFO_MAX,
    RENEWAL_INFO_MIN,
    RETRY_AFTER_MAX,
)

MAX_DOUBLINGS = 16


class HostRecord(Struct, kw_only=True):
    """What is remembered of a name beside its certificate; stored. Times since the epoch."""

    issuer: str | None = None
    """The directory URL that its certificate came from."""
    on_demand: bool = False
    """It is not configured; a client asked for it."""
    obtained_at: float = 0.0
    renew_at: float | None = None
    """None: not decided yet."""
    window: Window | None = None
    """What the issuer suggested last."""
    ask_again_at: float = 0.0
    """When to ask the issuer again."""
    failures: int = 0
    """Consecutive rounds in which no issuer delivered."""
    failing_since: float | None = None
    error: str | None = None
    """What went wrong last."""
    next_attempt: float = 0.0
    limited: dict[str, float] = field(default_factory=dict)
    """Issuers that want no order for the name before a time."""


class Order(NamedTuple):
    """An order to place now."""

    host: str
    issuer: str
    is_renewal: bool


class _Host:
    def __init__(self, record: HostRecord, lifetime: Lifetime | None) -> None:
        self.record = record
        self.lifetime = lifetime
        self.tried: set[str] = set()
        """Issuers that failed in this round."""
        self.is_ordered = False
        """An order is in progress."""


class _Issuer:
    def __init__(self, now: float) -> None:
        self.down_until = now
        self.asked_until = now
        """It has asked to be left alone until then."""
        self.outages = 0
        self.error: str | None = None
        self._tokens = float(ORDERS_BURST)
        self._at = now

    def refill(self, now: float) -> None:
        elapsed = max(now - self._at, 0.0)
        self._tokens = min(self._tokens + elapsed * ORDERS_PER_SECOND, float(ORDERS_BURST))
        self._at = now

    def free_at(self) -> float:
        """When it may be asked for something, by what is known at the last `refill`."""
        wait = 0.0 if self._tokens >= 1 else (1 - self._tokens) / ORDERS_PER_SECOND
        return max(self.down_until, self._at + wait)

    def take(self) -> None:
        self._tokens -= 1


class IssuerState(NamedTuple):
    """How an issuer does, for status."""

    directory: str
    down_until: float | None
    error: str | None


class Schedule:
    """Orders for a set of names. `chance` returns random numbers below 1."""

    def __init__(self, issuers: Sequence[str], chance: Callable[[], float], now: float) -> None:
        """`issuers`: directory URLs, most preferred first."""
        self._chance = chance
        self._issuers = {issuer: _Issuer(now) for issuer in issuers}
        self._hosts: dict[str, _Host] = {}

    def use_issuers(self, issuers: Sequence[str], now: float) -> None:
        """Use these issuers from now on, in this order."""
        before = self._issuers
        self._issuers = {issuer: before.get(issuer) or _Issuer(now) for issuer in issuers}

    # --- names ------------------------------------------------------------------------------------

    def __contains__(self, host: str) -> bool:
        return host in self._hosts

    def hosts(self) -> Iterable[str]:
        return self._hosts

    def record(self, host: str) -> HostRecord:
        return self._hosts[host].record

    def lifetime(self, host: str) -> Lifetime | None:
        """That of the certificate; None: there is none."""
        return self._hosts[host].lifetime

    def is_ordered(self, host: str) -> bool:
        """Whether an order is in progress here."""
        return self._hosts[host].is_ordered

    def manage(self, host: str, record: HostRecord, lifetime: Lifetime | None) -> None:
        """Take care of a name, or take over what is stored of it now."""
        found = self._hosts.get(host)
        if found is None:
            found = self._hosts[host] = _Host(record, lifetime)
        else:
            found.record, found.lifetime = record, lifetime
        if lifetime is not None and record.renew_at is None:
            self._decide(found)

    def forget(self, host: str) -> None:
        self._hosts.pop(host, None)

    def hurry(self, host: str, now: float) -> None:
        """An operator wants a new certificate: forget delays, except those that issuers asked for.

        A failure so far stays in sight until an order succeeds.
        """
        found = self._hosts[host]
        found.record.renew_at = now
        found.record.next_attempt = 0.0
        found.tried.clear()
        for issuer in self._issuers.values():
            issuer.down_until = min(issuer.down_until, max(issuer.asked_until, now))

    def _decide(self, host: _Host) -> None:
        lifetime, record = host.lifetime, host.record
        assert lifetime is not None
        if record.window is not None:
            renewal = record.window.renewal(lifetime, self._chance())
        else:
            renewal = lifetime.renewal(self._chance())
        # Where clocks differ, or an issuer suggests the past for every certificate, each renewal
        # would be due at once.
        age = min(RENEW_AGE_MIN, max(lifetime.seconds / 2, RENEW_AGE_LEAST))
        record.renew_at = max(renewal, record.obtained_at + age)

    # --- what is due ------------------------------------------------------------------------------

    def due_at(self, host: str) -> float:
        """When a name is to be ordered, as far as it depends on the name."""
        found = self._hosts[host]
        wanted = 0.0
        if found.lifetime is not None and found.record.renew_at is not None:
            wanted = found.record.renew_at
        return max(wanted, found.record.next_attempt)

    def orders(self, now: float, most: int, busy: Container[str] = ()) -> Iterator[Order]:
        """At most so many orders that are due; each counts as placed, and must be settled by
        `succeeded`, `failed` or `dropped`. Names without a valid certificate come first.

        `busy`: names whose last order is settled, but not quite over.
        """
        if most <= 0:
            return
        for issuer in self._issuers.values():
            issuer.refill(now)
        due = [
            (_urgency(found, now), name)
            for name, found in self._hosts.items()
            if not found.is_ordered and self.due_at(name) <= now and name not in busy
        ]
        for _, name in sorted(due):
            found = self._hosts[name]
            directory = self._issuer_for(found, now)
            if directory is None:
                continue
            self._issuers[directory].take()
            found.is_ordered = True
            yield Order(name, directory, found.lifetime is not None)
            most -= 1
            if not most:
                return

    def _issuer_for(self, host: _Host, now: float) -> str | None:
        for name, issuer in self._issuers.items():
            if self._could_deliver(host, name, now) and issuer.free_at() <= now:
                return name
        return None

    def _could_deliver(self, host: _Host, issuer: str, now: float) -> bool:
        """Whether an issuer is neither tried nor to be left alone."""
        return (
            issuer not in host.tried
            and host.record.limited.get(issuer, 0.0) <= now
            and self._issuers[issuer].down_until <= now
        )

    def next_at(self, now: float) -> float | None:
        """When `orders` is worth calling again, if nothing else happens."""
        for issuer in self._issuers.values():
            issuer.refill(now)
        times = []
        for name, found in self._hosts.items():
            if found.is_ordered:
                continue
            free = [
                max(issuer.free_at(), found.record.limited.get(directory, 0.0))
                for directory, issuer in self._issuers.items()
                if directory not in found.tried
            ]
            times.append(max(self.due_at(name), min(free, default=0.0)))
        return min(times, default=None)

    # --- what became of orders --------------------------------------------------------------------

    def succeeded(self, host: str, issuer: str, lifetime: Lifetime, now: float) -> None:
        """There is a new certificate."""
        if issuer in self._issuers:
            self._issuers[issuer].outages = 0
            self._issuers[issuer].error = None
        found = self._hosts.get(host)
        if found is None:
            return
        found.is_ordered = False
        found.tried.clear()
        found.lifetime = lifetime
        found.record = HostRecord(issuer=issuer, obtained_at=now, on_demand=found.record.on_demand)
        self._decide(found)

    def failed(self, host: str, issuer: str, failure: Failure, now: float) -> None:
        """An order failed: the next issuer is tried, or all of them later."""
        waiting = min(failure.retry_after or 0.0, RETRY_AFTER_MAX)
        if failure.cause.is_issuers and issuer in self._issuers:
            self._leave_alone(self._issuers[issuer], failure, waiting, now)
        found = self._hosts.get(host)
        if found is None:
            return
        found.is_ordered = False
        record = found.record
        record.error = failure.message
        if record.failing_since is None:
            record.failing_since = now
        if not failure.cause.is_issuers:  # otherwise the name keeps its turn
            found.tried.add(issuer)
        if waiting and not failure.cause.is_issuers:
            record.limited = {
                name: until for name, until in record.limited.items() if until > now
            } | {issuer: now + waiting}
        if found.tried and not any(self._could_deliver(found, name, now) for name in self._issuers):
            found.tried.clear()
            record.failures += 1
            record.next_attempt = now + self._backoff(found)

    def dropped(self, host: str) -> None:
        """An order was not placed after all."""
        if host in self._hosts:
            self._hosts[host].is_ordered = False

    def _leave_alone(self, issuer: _Issuer, failure: Failure, waiting: float, now: float) -> None:
        if failure.cause is Cause.REFUSED:
            delay = ISSUER_REFUSES
        else:
            delay = min(ISSUER_DOWN_MIN * 2 ** min(issuer.outages, MAX_DOUBLINGS), ISSUER_DOWN_MAX)
            issuer.outages += 1
        delay *= 1 + BACKOFF_JITTER * self._chance()
        issuer.asked_until = max(issuer.asked_until, now + waiting)
        issuer.down_until = max(issuer.down_until, now + max(delay, waiting))
        issuer.error = failure.message

    def _backoff(self, host: _Host) -> float:
        most = BACKOFF_MAX
        if host.lifetime is not None:
            most = min(most, max(host.lifetime.seconds * BACKOFF_SHARE, BACKOFF_MIN))
        delay = BACKOFF_MIN * 2 ** min(host.record.failures - 1, MAX_DOUBLINGS)
        return min(delay, most) * (1 + BACKOFF_JITTER * self._chance())

    def issuers(self, now: float) -> Iterator[IssuerState]:
        for directory, issuer in self._issuers.items():
            is_down = issuer.down_until > now
            yield IssuerState(directory, issuer.down_until if is_down else None, issuer.error)

    # --- renewal information (RFC 9773) -----------------------------------------------------------

    def questions(self, now: float) -> dict[str, list[str]]:
        """Names to ask about now, by the issuer of their certificate; answer each by `suggested` or
        `unanswered`."""
        found: dict[str, list[str]] = {}
        for name, host in self._hosts.items():
            issuer = host.record.issuer
            if (
                host.lifetime is not None
                and issuer in self._issuers
                and not host.is_ordered
                and host.record.ask_again_at <= now < self.due_at(name)
                and self._issuers[issuer].down_until <= now
            ):
                found.setdefault(issuer, []).append(name)
        return found

    def suggested(self, host: str, window: Window, retry_after: float | None, now: float) -> None:
        """The issuer suggests when to renew, and when to ask again."""
        found = self._hosts.get(host)
        if found is None or found.lifetime is None:
            return
        wait = RENEWAL_INFO_INTERVAL if retry_after is None else retry_after
        wait = min(max(wait, RENEWAL_INFO_MIN), RENEWAL_INFO_MAX)
        found.record.ask_again_at = now + wait
        if window != found.record.window:
            found.record.window = window
            self._decide(found)

    def unanswered(self, host: str, now: float) -> None:
        """The issuer suggests nothing: renew as planned (RFC 9773 section 4.3.3)."""
        if host in self._hosts:
            self._hosts[host].record.ask_again_at = now + RENEWAL_INFO_INTERVAL


def _urgency(host: _Host, now: float) -> tuple[bool, float]:
    """Sorts names without a certificate first, then by how soon it expires."""
    if host.lifetime is None:
        return False, host.record.failures
    return True, host.lifetime.not_after
