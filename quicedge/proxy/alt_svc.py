"""Alt-Svc in one worker: what each listener advertises, and what becomes of its clients (RFC 7838).

HTTP/3 is advertised to clients on TCP as long as it is seen to work. A client may arrive at another
worker than the one that advertised it, so workers only report who got an advertisement and who
arrived; the supervisor counts (`supervisor.alt_svc`) and instructs all workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol
from zlib import crc32

from msgspec import Struct, field

from quicedge.config.host_port import HostPort
from quicedge.config.limits import (
    ALT_SVC_REPORT_MAX,
    ALT_SVC_TABLE,
    ALT_SVC_TRIAL_PERIOD,
    ALT_SVC_TRIAL_SHARE,
)
from quicedge.config.schema import AltSvc as AltSvcConfig

CLEAR = b"clear"
"""RFC 7838 section 3: the client forgets all alternatives of the origin."""


class Advertising(StrEnum):
    """Whom a TCP listener advertises HTTP/3 to."""

    ON = "on"
    """Every client."""
    WITHDRAWN = "withdrawn"
    """Nobody; those that got an advertisement are asked to forget it."""
    TRIAL = "trial"
    """As withdrawn, but for a small share of the clients."""


class Arrivals(Struct, array_like=True):
    """What happened at one UDP listener since the last report."""

    addresses: list[bytes] = field(default_factory=list)
    """Clients that completed a handshake."""
    requests: bool = False
    """Requests were answered over HTTP/3."""
    datagrams: int = 0
    """Datagrams received."""
    handshakes_failed: int = 0


class AltSvcReport(Struct, array_like=True):
    """What happened in one worker since its last report, by listener."""

    advertised: dict[str, list[bytes]] = field(default_factory=dict)
    """Clients on TCP that got an advertisement, and had got none lately."""
    arrivals: dict[str, Arrivals] = field(default_factory=dict)


class QuicCounts(NamedTuple):
    """Counters of a UDP listener since the worker's start."""

    datagrams: int
    handshakes_failed: int


def lead_to(listener: str, quic: Iterable[str], port: int | None) -> tuple[str, ...]:
    """The UDP listeners that clients of a TCP listener reach when a port is advertised.

    None of them may have that port: it is then translated on the way, to whichever of them.
    """
    quic = tuple(quic)
    place = HostPort.parse(listener)
    if listener in quic and port in (None, place.port):
        return (listener,)
    family = [name for name in quic if (":" in HostPort.parse(name).host) == (":" in place.host)]
    wanted = port or place.port
    return tuple(name for name in family if HostPort.parse(name).port == wanted) or (
        tuple(family) if port else ()
    )


class AltSvcSource(Protocol):
    """What is advertised to clients of one listener."""

    def value_for(self, address: bytes) -> bytes | None:
        """The field value for a response to a client at `address`; None: no field."""


class QuicSource:
    """Clients that speak HTTP/3: the field keeps what they know from expiring (section 2.2)."""

    __slots__ = ("addresses", "is_used", "value")

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.is_used = False
        self.addresses: set[bytes] = set()

    def value_for(self, address: bytes) -> bytes | None:
        self.is_used = True
        return self.value

    def arrived(self, address: bytes) -> None:
        """A client has completed a handshake."""
        if len(self.addresses) < ALT_SVC_REPORT_MAX:
            self.addresses.add(address)


class TcpSource:
    """Clients on TCP."""

    __slots__ = (
        "_clock",
        "_former",
        "_fresh",
        "_recent",
        "_turned_at",
        "patience",
        "state",
        "value",
    )

    def __init__(self, clock: Callable[[], float], patience: float) -> None:
        self.value: bytes | None = None
        """None: there is no HTTP/3 to advertise."""
        self.patience = patience
        """Seconds after which a client is reported anew."""
        self.state = Advertising.ON
        self._clock = clock
        self._recent: set[bytes] = set()
        """Clients that got an advertisement in this period and, in `_former`, in the one before."""
        self._former: set[bytes] = set()
        self._fresh: list[bytes] = []
        self._turned_at = clock()

    def value_for(self, address: bytes) -> bytes | None:
        value = self.value
        if value is None:
            return None
        if self.state is not Advertising.ON and not (
            self.state is Advertising.TRIAL and self._is_on_trial(address)
        ):
            return CLEAR
        if address not in self._recent:
            self._note(address)
        return value

    def _is_on_trial(self, address: bytes) -> bool:
        """All responses to a client say the same for a while, in every worker."""
        period = int(self._clock() // ALT_SVC_TRIAL_PERIOD)
        return crc32(b"%d %b" % (period, address)) % ALT_SVC_TRIAL_SHARE == 0

    def _note(self, address: bytes) -> None:
        if len(self._recent) >= ALT_SVC_TABLE or len(self._fresh) >= ALT_SVC_REPORT_MAX:
            return
        self._recent.add(address)
        if address not in self._former:
            self._fresh.append(address)

    def take(self) -> list[bytes]:
        """Clients that got an advertisement since the last call, and had got none lately."""
        now = self._clock()
        if now - self._turned_at >= self.patience:
            self._turned_at = now
            self._former, self._recent = self._recent, set()
        fresh, self._fresh = self._fresh, []
        return fresh


class AltSvcBoard:
    """The listeners of one worker. `clock` is the wall clock, which all workers share."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tcp: dict[str, TcpSource] = {}
        self._quic: dict[str, QuicSource] = {}
        self._reported: dict[str, QuicCounts] = {}

    def configure(self, config: AltSvcConfig, *, tcp: Iterable[str], quic: Iterable[str]) -> None:
        """Use a configuration from now on, for live connections too."""
        quic = tuple(quic)
        for name in quic:
            source = self._quic.setdefault(name, QuicSource())
            source.value = _value(config.port or HostPort.parse(name).port, config.max_age)
        for name in tcp:
            on_tcp = self._tcp.setdefault(name, TcpSource(self._clock, config.patience))
            on_tcp.patience = config.patience
            is_reachable = bool(lead_to(name, quic, config.port))
            port = config.port or HostPort.parse(name).port
            on_tcp.value = _value(port, config.max_age) if is_reachable else None

    def of_tcp(self, listener: str) -> TcpSource | None:
        return self._tcp.get(listener)

    def of_quic(self, listener: str) -> QuicSource | None:
        return self._quic.get(listener)

    def set_states(self, states: Mapping[str, Advertising]) -> None:
        """What the supervisor has decided, by TCP listener."""
        for name, state in states.items():
            if name in self._tcp:
                self._tcp[name].state = state

    def report(self, counts: Mapping[str, QuicCounts]) -> AltSvcReport | None:
        """What happened since the last call; None: nothing. `counts`: by UDP listener."""
        advertised = {name: fresh for name, source in self._tcp.items() if (fresh := source.take())}
        arrivals = {}
        for name, source in self._quic.items():
            found = self._arrivals(name, source, counts.get(name))
            if found != Arrivals():
                arrivals[name] = found
        return AltSvcReport(advertised, arrivals) if advertised or arrivals else None

    def _arrivals(self, name: str, source: QuicSource, counts: QuicCounts | None) -> Arrivals:
        before = self._reported.get(name, QuicCounts(0, 0))
        now = self._reported[name] = counts or before
        found = Arrivals(
            list(source.addresses),
            source.is_used,
            now.datagrams - before.datagrams,
            now.handshakes_failed - before.handshakes_failed,
        )
        source.addresses.clear()
        source.is_used = False
        return found


def _value(port: int, max_age: float) -> bytes:
    # RFC 7838 section 3: an empty host means the host of the request.
    return b'h3=":%d"; ma=%d' % (port, max_age)
