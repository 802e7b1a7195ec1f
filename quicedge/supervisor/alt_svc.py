"""Whether HTTP/3 works for those it is advertised to: the evidence, and what follows from it.

Evidence is kept per TCP listener, and so per address family. A client counts from the first
response with the advertisement, and as missing when neither its address has arrived over QUIC
within `alt_svc.patience`, nor anybody else. Some clients never arrive, such as curl, crawlers, and
visitors of a single page: they are no evidence as long as others arrive, so any arrival ends the
count. What is counted is networks, not clients: one network that drops UDP, or a crowd behind one
address, is no evidence either. How many must be missing depends on how many usually come per
arrival.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

import structlog

from quicedge.admin.view import AltSvcReason, AltSvcStatus
from quicedge.config.limits import (
    ALT_SVC_ARRIVAL_MEMORY,
    ALT_SVC_CERTAINTY,
    ALT_SVC_CHECK_INTERVAL,
    ALT_SVC_ENOUGH,
    ALT_SVC_MOST,
    ALT_SVC_RETRY,
    ALT_SVC_TABLE,
)
from quicedge.config.schema import AltSvc as AltSvcConfig
from quicedge.proxy.alt_svc import Advertising, AltSvcReport, Arrivals, lead_to
from quicedge.shares.prefixes import prefix_of

log = structlog.get_logger(__name__)

_ODDS_MEMORY = 1000.0
"""Arrivals and missing networks after which the earlier ones count half."""


class Evidence:
    """What is known about the clients of one TCP listener. Times are in seconds of one clock."""

    def __init__(self, listener: str, patience: float) -> None:
        self.listener = listener
        self.patience = patience
        """Seconds that clients have to arrive after an advertisement."""
        self.state = Advertising.ON
        self.since: float | None = None
        """When HTTP/3 was withdrawn; None: it is not."""
        self.advertised = 0
        """Clients that HTTP/3 was advertised to since the start, and what became of them."""
        self.arrived = 0
        self.missed = 0
        self.withdrawals = 0
        self._waiting: dict[bytes, float] = {}
        """When HTTP/3 was advertised to clients that have not arrived, earliest first."""
        self._seen: dict[bytes, float] = {}
        """When clients arrived last, earliest first."""
        self._arrived_at = -math.inf
        """When anybody arrived last."""
        self._missing: set[bytes] = set()
        """Networks of clients that got an advertisement since then and did not arrive in time."""
        self._counted: set[bytes] = set()
        """Networks of all clients that did not arrive in time, since then."""
        self._datagrams = 0
        """Received since anybody arrived, as is the next."""
        self._handshakes_failed = 0
        self._settled = 0.0
        """Arrivals and the networks that were missing before each; and the arrivals alone."""
        self._arrivals = 0.0

    @property
    def needed(self) -> int:
        """How many networks must be missing before HTTP/3 is withdrawn."""
        if not self._arrivals:
            return ALT_SVC_ENOUGH
        usual = self._settled / self._arrivals
        return min(max(math.ceil(ALT_SVC_CERTAINTY * usual), ALT_SVC_ENOUGH), ALT_SVC_MOST)

    @property
    def reason(self) -> AltSvcReason:
        """Why clients probably do not arrive."""
        if not self._datagrams:
            return AltSvcReason.NO_DATAGRAMS
        if self._handshakes_failed:
            return AltSvcReason.HANDSHAKES_FAIL
        return AltSvcReason.NO_HANDSHAKES

    def note_advertised(self, addresses: Iterable[bytes], now: float) -> None:
        """Clients at these addresses got an advertisement."""
        for address in addresses:
            if address in self._waiting:
                continue
            self.advertised += 1
            if now - self._seen.get(address, -math.inf) < ALT_SVC_ARRIVAL_MEMORY:
                self.arrived += 1  # it came before, and still speaks TCP at times
            elif len(self._waiting) < ALT_SVC_TABLE:
                self._waiting[address] = now

    def arrive(self, arrivals: Arrivals, now: float) -> None:
        """Something happened at a UDP listener that is advertised."""
        self._datagrams += arrivals.datagrams
        self._handshakes_failed += arrivals.handshakes_failed
        for address in arrivals.addresses:
            if self._seen.pop(address, None) is None:
                self._learn()
            self._seen[address] = now
            if self._waiting.pop(address, None) is not None:
                self.arrived += 1
        while len(self._seen) > ALT_SVC_TABLE:
            del self._seen[next(iter(self._seen))]
        if arrivals.addresses or arrivals.requests:
            self._arrived_at = now
            self._restore()

    def check(self, now: float) -> None:
        """Count the clients that did not arrive in time, and decide."""
        while self._waiting:
            address = next(iter(self._waiting))
            advertised_at = self._waiting[address]
            if advertised_at + self.patience > now:
                break
            del self._waiting[address]
            self._miss(prefix_of(address), advertised_at)
        while self._seen:
            address = next(iter(self._seen))
            if now - self._seen[address] < ALT_SVC_ARRIVAL_MEMORY:
                break
            del self._seen[address]
        if self.state is Advertising.ON and len(self._missing) >= self.needed:
            self._withdraw(now)
        elif (
            self.state is Advertising.WITHDRAWN
            and self.since is not None
            and now - self.since >= ALT_SVC_RETRY
        ):
            self.state = Advertising.TRIAL
            log.info("alt-svc on trial", listener=self.listener)

    def _miss(self, network: bytes, advertised_at: float) -> None:
        self.missed += 1
        if len(self._counted) < ALT_SVC_MOST:
            self._counted.add(network)
        if advertised_at >= self._arrived_at and len(self._missing) < ALT_SVC_MOST:
            self._missing.add(network)

    def _learn(self) -> None:
        """A client has arrived: after how many that did not?"""
        self._settled += len(self._counted) + 1
        self._arrivals += 1
        self._counted.clear()
        if self._settled > _ODDS_MEMORY:
            self._settled /= 2
            self._arrivals /= 2

    def _withdraw(self, now: float) -> None:
        self.state = Advertising.WITHDRAWN
        self.since = now
        self.withdrawals += 1
        log.warning(
            "alt-svc withdrawn",
            listener=self.listener,
            networks=len(self._missing),
            reason=self.reason.value,
            datagrams=self._datagrams,
            handshakes_failed=self._handshakes_failed,
        )

    def _restore(self) -> None:
        self._missing.clear()
        self._counted.clear()
        self._datagrams = self._handshakes_failed = 0
        if self.state is not Advertising.ON:
            self.state = Advertising.ON
            self.since = None
            log.info("alt-svc restored", listener=self.listener)

    def status(self, now: float) -> AltSvcStatus:
        return AltSvcStatus(
            listener=self.listener,
            state=self.state,
            withdrawn_seconds=None if self.since is None else now - self.since,
            reason=None if self.state is Advertising.ON else self.reason,
            advertised=self.advertised,
            arrived=self.arrived,
            missed=self.missed,
            waiting=len(self._waiting),
            networks_missing=len(self._missing),
            networks_needed=self.needed,
            withdrawals=self.withdrawals,
        )


class AltSvcEvidence:
    """The evidence of all TCP listeners. `on_change` is called with the states that changed."""

    def __init__(
        self,
        clock: Callable[[], float],
        on_change: Callable[[dict[str, Advertising]], None],
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._listeners: dict[str, Evidence] = {}
        self._places: dict[str, list[Evidence]] = {}
        """By UDP listener: those whose clients it is reached by."""

    def configure(self, config: AltSvcConfig, *, tcp: Iterable[str], quic: Iterable[str]) -> None:
        """Use a configuration from now on; what is known about a listener is kept."""
        quic = tuple(quic)
        kept: dict[str, Evidence] = {}
        self._places = {name: [] for name in quic}
        for name in tcp if config.enabled else ():
            places = lead_to(name, quic, config.port)
            if places:
                kept[name] = self._listeners.get(name) or Evidence(name, config.patience)
                kept[name].patience = config.patience
            for place in places:
                self._places[place].append(kept[name])
        self._listeners = kept

    @property
    def states(self) -> dict[str, Advertising]:
        """What each listener should do."""
        return {name: evidence.state for name, evidence in self._listeners.items()}

    def receive(self, report: AltSvcReport) -> None:
        """Take a worker's report."""
        now = self._clock()
        before = self.states
        for name, addresses in report.advertised.items():
            if name in self._listeners:
                self._listeners[name].note_advertised(addresses, now)
        for name, arrivals in report.arrivals.items():
            for evidence in self._places.get(name, ()):
                evidence.arrive(arrivals, now)
        self._announce(before)

    def check(self) -> None:
        """Decide; call it every few seconds."""
        now = self._clock()
        before = self.states
        for evidence in self._listeners.values():
            evidence.check(now)
        self._announce(before)

    async def run(self) -> None:
        """Decide periodically."""
        while True:
            await asyncio.sleep(ALT_SVC_CHECK_INTERVAL)
            self.check()

    def _announce(self, before: dict[str, Advertising]) -> None:
        changed = {name: new for name, new in self.states.items() if before.get(name) is not new}
        if changed:
            self._on_change(changed)

    @property
    def status(self) -> list[AltSvcStatus]:
        now = self._clock()
        return [evidence.status(now) for evidence in self._listeners.values()]
