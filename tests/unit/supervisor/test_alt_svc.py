"""When Alt-Svc is withdrawn, tried again and restored, on a virtual clock."""

from __future__ import annotations

import pytest

from quicedge.admin.view import AltSvcReason, AltSvcStatus
from quicedge.config.limits import (
    ALT_SVC_ARRIVAL_MEMORY,
    ALT_SVC_CERTAINTY,
    ALT_SVC_ENOUGH,
    ALT_SVC_MOST,
    ALT_SVC_PATIENCE,
    ALT_SVC_RETRY,
    ALT_SVC_TABLE,
)
from quicedge.config.schema import AltSvc
from quicedge.proxy.alt_svc import Advertising, AltSvcReport, Arrivals
from quicedge.supervisor.alt_svc import AltSvcEvidence

V4, V6 = "0.0.0.0:443", "[::]:443"


def v4(network: int, host: int = 1) -> bytes:
    """A client in one of many /24 networks."""
    return bytes((10, network >> 8, network & 255, host))


def v6(network: int, host: int = 1) -> bytes:
    """A client in one of many /56 networks."""
    return b"\x20\x01\x0d\xb8" + network.to_bytes(3, "big") + host.to_bytes(9, "big")


class World:
    """One supervisor's evidence, and how it instructed the workers."""

    def __init__(self, config: AltSvc | None = None) -> None:
        self.now = 1000.0
        self.changes: list[dict[str, Advertising]] = []
        self.evidence = AltSvcEvidence(lambda: self.now, self.changes.append)
        self.evidence.configure(config or AltSvc(), tcp=[V4, V6], quic=[V4, V6])

    def advertise(self, *addresses: bytes, at: str = V4) -> None:
        self.evidence.receive(AltSvcReport({at: list(addresses)}))

    def arrive(self, *addresses: bytes, at: str = V4) -> None:
        self.evidence.receive(AltSvcReport({}, {at: Arrivals(list(addresses))}))

    def happen(self, arrivals: Arrivals, at: str = V4) -> None:
        self.evidence.receive(AltSvcReport({}, {at: arrivals}))

    def wait(self, seconds: float = ALT_SVC_PATIENCE) -> None:
        self.now += seconds
        self.evidence.check()

    def state(self, at: str = V4) -> Advertising:
        return self.evidence.states[at]

    def status(self, at: str = V4) -> AltSvcStatus:
        return next(one for one in self.evidence.status if one.listener == at)

    def withdraw(self) -> None:
        self.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH)))
        self.wait()
        assert self.state() is Advertising.WITHDRAWN


def test_it_is_withdrawn_once_clients_of_enough_networks_do_not_arrive() -> None:
    world = World()
    world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH)))
    world.wait(ALT_SVC_PATIENCE - 1)
    assert world.state() is Advertising.ON, "they may still arrive"
    world.wait(1)
    assert world.state() is Advertising.WITHDRAWN
    assert world.changes == [{V4: Advertising.WITHDRAWN}]
    status = world.status()
    assert status.missed == status.advertised == status.networks_missing == ALT_SVC_ENOUGH
    assert status.withdrawn_seconds == 0
    assert status.withdrawals == 1


def test_the_patience_is_as_configured_also_for_advertisements_before_a_reload() -> None:
    world = World(AltSvc(patience=100))
    world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH)))
    world.wait(99)
    assert world.state() is Advertising.ON
    world.evidence.configure(AltSvc(patience=120), tcp=[V4, V6], quic=[V4, V6])
    world.wait(20)
    assert world.state() is Advertising.ON
    world.wait(1)
    assert world.state() is Advertising.WITHDRAWN


def test_few_networks_never_suffice_however_often_they_are_advertised_to() -> None:
    world = World()
    for _ in range(100):
        world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH - 1)))
        world.wait()
    assert world.state() is Advertising.ON
    assert world.status().missed == 100 * (ALT_SVC_ENOUGH - 1)


@pytest.mark.parametrize("client", [v4, v6])
def test_a_crowd_in_one_network_that_drops_udp_is_one_network(client: object) -> None:
    world = World()
    world.advertise(*(client(7, host) for host in range(1, 250)), at=V4)  # type: ignore[operator]
    world.wait()
    assert world.state() is Advertising.ON
    assert world.status().networks_missing == 1


def test_clients_behind_one_nat_address_are_one_client() -> None:
    world = World()
    for _ in range(1000):
        world.advertise(v4(7))
    assert world.status().advertised == world.status().waiting == 1
    world.arrive(v4(7))
    assert world.status().arrived == 1, "one of them arrived: it can be reached over QUIC"
    world.advertise(v4(7))
    world.wait()
    assert world.status().missed == 0


def test_clients_that_speak_no_http3_do_not_withdraw_it_while_others_arrive() -> None:
    world = World()
    for n in range(3000):
        world.advertise(v4(n))
        if n % 15 == 0:
            world.arrive(v4(n))
        world.wait(1)
    world.wait()
    assert not world.changes
    assert world.status().arrived == 200
    assert world.status().missed == 2800


def test_the_rarer_clients_arrive_the_more_advertisements_must_be_in_vain() -> None:
    world = World()
    assert world.status().networks_needed == ALT_SVC_ENOUGH
    for n in range(1000):
        world.advertise(v4(n))
        if n % 10 == 0:
            world.arrive(v4(n))
        world.wait(1)
    needed = world.status().networks_needed
    assert needed == pytest.approx(10 * ALT_SVC_CERTAINTY, rel=0.4)
    world.wait()
    before = world.status().networks_missing
    world.advertise(*(v4(n) for n in range(2000, 2000 + needed - before - 1)))
    world.wait()
    assert world.state() is Advertising.ON
    world.advertise(*(v4(n) for n in range(5000, 5000 + needed)))
    world.wait()
    assert world.state() is Advertising.WITHDRAWN


def test_after_a_change_old_odds_are_forgotten() -> None:
    world = World()
    for n in range(4000):
        if n % 500 == 0:
            world.arrive(v4(n))
        world.advertise(v4(n))
        world.wait(1)
    assert world.status().networks_needed == ALT_SVC_MOST
    world.arrive(*(v6(n) for n in range(4000)))
    assert world.status().networks_needed < 100


def test_a_long_wait_for_an_arrival_does_not_make_itself_usual() -> None:
    world = World()
    world.arrive(v4(0))
    for n in range(1, 1 + ALT_SVC_ENOUGH):
        world.advertise(v4(n))
        world.wait()
    assert world.state() is Advertising.WITHDRAWN


@pytest.mark.parametrize("arrivals", [Arrivals([v4(999)]), Arrivals(requests=True)])
def test_any_arrival_ends_the_count(arrivals: Arrivals) -> None:
    """Also of a client that got no advertisement, or requests on connections that exist."""
    world = World()
    world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH - 1)))
    world.wait()
    world.happen(arrivals)
    assert world.status().networks_missing == 0
    world.advertise(v4(500))
    world.wait()
    assert world.state() is Advertising.ON


def test_datagrams_and_failed_handshakes_are_no_arrival() -> None:
    world = World()
    world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH)))
    world.happen(Arrivals(datagrams=100, handshakes_failed=9))
    world.wait()
    assert world.state() is Advertising.WITHDRAWN


def test_the_address_families_are_judged_apart() -> None:
    world = World()
    world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH)), at=V4)
    world.advertise(*(v6(n) for n in range(ALT_SVC_ENOUGH)), at=V6)
    world.arrive(v6(3), at=V6)
    world.wait()
    assert world.state(V4) is Advertising.WITHDRAWN
    assert world.state(V6) is Advertising.ON


@pytest.mark.parametrize(
    ("arrivals", "reason"),
    [
        (Arrivals(), AltSvcReason.NO_DATAGRAMS),
        (Arrivals(datagrams=5), AltSvcReason.NO_HANDSHAKES),
        (Arrivals(datagrams=5, handshakes_failed=1), AltSvcReason.HANDSHAKES_FAIL),
    ],
)
def test_the_probable_reason_is_given(arrivals: Arrivals, reason: AltSvcReason) -> None:
    world = World()
    world.happen(Arrivals([v4(1)], datagrams=1000, handshakes_failed=3))  # once it worked
    world.advertise(*(v4(n) for n in range(100, 100 + ALT_SVC_ENOUGH)))
    world.happen(arrivals)
    assert world.status().reason is None
    world.wait()
    assert world.status().reason is reason


def test_datagrams_of_one_family_do_not_hide_that_none_arrive_of_the_other() -> None:
    world = World()
    world.happen(Arrivals(datagrams=5), at=V6)
    world.withdraw()
    assert world.status(V4).reason is AltSvcReason.NO_DATAGRAMS


def test_a_trial_begins_some_time_after_the_withdrawal() -> None:
    world = World()
    world.withdraw()
    world.wait(ALT_SVC_RETRY - 1)
    assert world.state() is Advertising.WITHDRAWN
    world.wait(1)
    assert world.state() is Advertising.TRIAL
    world.advertise(v4(3000))
    world.wait(10 * ALT_SVC_RETRY)
    assert world.state() is Advertising.TRIAL, "until a client arrives"
    assert world.status().withdrawn_seconds == 11 * ALT_SVC_RETRY
    assert world.changes == [{V4: Advertising.WITHDRAWN}, {V4: Advertising.TRIAL}]


@pytest.mark.parametrize("waited", [0, ALT_SVC_RETRY])
def test_it_is_restored_when_a_client_arrives(waited: float) -> None:
    world = World()
    world.withdraw()
    world.wait(waited)
    world.arrive(v4(77))
    assert world.changes[-1] == {V4: Advertising.ON}
    status = world.status()
    assert status.reason is status.withdrawn_seconds is None
    assert status.withdrawals == 1


def test_a_client_advertised_to_after_it_arrived_is_not_missing() -> None:
    """Browsers keep TCP connections beside QUIC; reports of two workers come in any order."""
    world = World()
    world.arrive(*(v4(n) for n in range(100)))
    world.advertise(*(v4(n) for n in range(100)))
    world.wait()
    assert world.status().missed == 0
    assert world.status().arrived == 100
    world.wait(ALT_SVC_ARRIVAL_MEMORY)
    world.advertise(v4(5))
    world.wait()
    assert world.status().missed == 1


def test_what_is_remembered_is_bounded() -> None:
    world = World()
    many = [n.to_bytes(4, "big") for n in range(2 * ALT_SVC_TABLE)]
    world.advertise(*many)
    world.arrive(*many[ALT_SVC_TABLE:])
    (evidence,) = (e for e in world.evidence._listeners.values() if e.listener == V4)
    assert len(evidence._waiting) == ALT_SVC_TABLE
    assert len(evidence._seen) == ALT_SVC_TABLE
    world.wait()
    assert len(evidence._missing) <= ALT_SVC_MOST


def test_arrivals_count_for_listeners_that_lead_there() -> None:
    """With a port of its own, clients of every TCP listener are sent to it."""
    world = World()
    tcp, quic = ["0.0.0.0:443", "0.0.0.0:8443"], ["0.0.0.0:443", "0.0.0.0:9443"]
    world.evidence.configure(AltSvc(port=9443), tcp=tcp, quic=quic)
    for at in tcp:
        world.advertise(*(v4(n) for n in range(ALT_SVC_ENOUGH - 1)), at=at)
    world.wait()
    world.happen(Arrivals(requests=True), at="0.0.0.0:443")
    assert world.status(tcp[0]).networks_missing == ALT_SVC_ENOUGH - 1
    world.happen(Arrivals(requests=True), at="0.0.0.0:9443")
    assert [one.networks_missing for one in world.evidence.status] == [0, 0]


def test_a_reload_keeps_the_evidence_of_listeners_that_remain() -> None:
    world = World()
    world.withdraw()
    world.evidence.configure(AltSvc(max_age=60), tcp=[V4], quic=[V4])
    assert world.evidence.states == {V4: Advertising.WITHDRAWN}


def test_there_is_no_evidence_where_nothing_is_advertised() -> None:
    assert World(AltSvc(enabled=False)).evidence.states == {}
    world = World()
    world.evidence.configure(AltSvc(), tcp=[V4, V6], quic=[V6])
    assert list(world.evidence.states) == [V6]
    world.advertise(v4(1))
    world.arrive(v4(1))
    assert list(world.evidence.states) == [V6]
