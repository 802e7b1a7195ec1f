"""What listeners advertise to their clients, and what workers report of it."""

from __future__ import annotations

import pytest

from quicedge.config.limits import (
    ALT_SVC_PATIENCE,
    ALT_SVC_REPORT_MAX,
    ALT_SVC_TABLE,
    ALT_SVC_TRIAL_PERIOD,
    ALT_SVC_TRIAL_SHARE,
)
from quicedge.config.schema import AltSvc
from quicedge.proxy.alt_svc import (
    Advertising,
    AltSvcBoard,
    AltSvcReport,
    Arrivals,
    QuicCounts,
    QuicSource,
    TcpSource,
    lead_to,
)

V4, V6 = "0.0.0.0:443", "[::]:443"
CLIENT = b"\xc0\x00\x02\x01"


def client(number: int) -> bytes:
    return b"\x0a" + number.to_bytes(3, "big")


class World:
    def __init__(self) -> None:
        self.now = 10_000.0
        self.board = AltSvcBoard(lambda: self.now)
        self.configure()

    def configure(self, config: AltSvc | None = None, quic: tuple[str, ...] = (V4, V6)) -> None:
        self.board.configure(config or AltSvc(), tcp=[V4, V6], quic=quic)

    @property
    def tcp(self) -> TcpSource:
        source = self.board.of_tcp(V4)
        assert source is not None
        return source

    @property
    def quic(self) -> QuicSource:
        source = self.board.of_quic(V4)
        assert source is not None
        return source

    def report(self, **counts: int) -> AltSvcReport | None:
        known = {V4: QuicCounts(**counts)} if counts else {}
        return self.board.report(known)


def test_clients_of_both_transports_are_sent_the_port_of_the_listener() -> None:
    world = World()
    assert world.tcp.value_for(CLIENT) == b'h3=":443"; ma=86400'
    assert world.quic.value_for(CLIENT) == b'h3=":443"; ma=86400'


def test_a_reload_reaches_live_connections() -> None:
    world = World()
    tcp, quic = world.tcp, world.quic
    world.configure(AltSvc(port=8443, max_age=60))
    assert tcp.value_for(CLIENT) == quic.value_for(CLIENT) == b'h3=":8443"; ma=60'


def test_without_http3_nothing_is_advertised() -> None:
    world = World()
    world.configure(quic=())
    assert world.tcp.value_for(CLIENT) is None
    world.board.set_states({V4: Advertising.WITHDRAWN})
    assert world.tcp.value_for(CLIENT) is None
    assert world.report() is None


@pytest.mark.parametrize(
    ("listener", "quic", "port", "places"),
    [
        (V4, (V4, V6), None, (V4,)),
        (V6, (V4, V6), None, (V6,)),
        (V6, (V4,), None, ()),
        (V4, ("0.0.0.0:8443",), None, ()),
        (V4, ("0.0.0.0:8443", V4), 8443, ("0.0.0.0:8443",)),
        ("0.0.0.0:4433", ("0.0.0.0:4433", "[::]:4433"), 443, ("0.0.0.0:4433",)),
        ("192.0.2.1:443", ("192.0.2.1:443", "192.0.2.2:443"), None, ("192.0.2.1:443",)),
        ("192.0.2.1:443", ("0.0.0.0:443",), None, ("0.0.0.0:443",)),
    ],
)  # fmt: skip
def test_where_clients_arrive_that_a_port_is_advertised_to(
    listener: str, quic: tuple[str, ...], port: int | None, places: tuple[str, ...]
) -> None:
    assert lead_to(listener, quic, port) == places


def test_withdrawn_is_said_to_all_clients_of_that_listener() -> None:
    world = World()
    world.board.set_states({V4: Advertising.WITHDRAWN, "no.such:1": Advertising.TRIAL})
    assert {world.tcp.value_for(client(n)) for n in range(200)} == {b"clear"}
    assert world.report() is None, "who is asked to forget it, got no advertisement"
    other = world.board.of_tcp(V6)
    assert other is not None
    assert other.value_for(CLIENT) == b'h3=":443"; ma=86400'
    assert world.quic.value_for(CLIENT) == b'h3=":443"; ma=86400', "it works for this one"


def test_a_trial_advertises_to_the_same_small_share_in_every_worker() -> None:
    one, two = World(), World()
    for world in (one, two):
        world.board.set_states({V4: Advertising.TRIAL})
    clients = [client(n) for n in range(4000)]
    chosen = {each for each in clients if one.tcp.value_for(each) != b"clear"}
    assert 0.5 < len(chosen) / (4000 / ALT_SVC_TRIAL_SHARE) < 1.5
    for world in (one, two):
        assert chosen == {each for each in clients if world.tcp.value_for(each) != b"clear"}
    report = one.report()
    assert report is not None
    assert set(report.advertised[V4]) == chosen
    one.now += ALT_SVC_TRIAL_PERIOD
    later = {each for each in clients if one.tcp.value_for(each) != b"clear"}
    assert later != chosen, "others have their turn"


def test_a_client_is_reported_once_in_a_while_however_many_responses_it_gets() -> None:
    world = World()
    for _ in range(100):
        world.tcp.value_for(CLIENT)
        world.tcp.value_for(client(1))
    report = world.report()
    assert report is not None
    assert report.advertised == {V4: [CLIENT, client(1)]}
    world.tcp.value_for(CLIENT)
    assert world.report() is None
    for _ in range(10):
        world.now += ALT_SVC_PATIENCE
        assert world.report() is None
        world.tcp.value_for(CLIENT)
        assert world.report() is None, "a client that keeps coming is not new"
    for _ in range(2):
        world.now += ALT_SVC_PATIENCE
        assert world.report() is None
    world.tcp.value_for(CLIENT)
    assert world.report() is not None


def test_what_a_worker_remembers_and_reports_is_bounded() -> None:
    world = World()
    for n in range(3 * ALT_SVC_TABLE):
        world.tcp.value_for(client(n))
        world.quic.arrived(client(n))
        if n % 100 == 0:
            report = world.report()
            assert report is not None
    assert len(world.tcp._recent) <= ALT_SVC_TABLE
    world.now += ALT_SVC_PATIENCE
    world.report()
    for n in range(3 * ALT_SVC_REPORT_MAX):
        world.tcp.value_for(client(n + (1 << 20)))
        world.quic.arrived(client(n))
    report = world.report()
    assert report is not None
    assert len(report.advertised[V4]) == ALT_SVC_REPORT_MAX
    assert len(report.arrivals[V4].addresses) == ALT_SVC_REPORT_MAX


def test_reports_have_what_happened_since_the_last_one() -> None:
    world = World()
    world.quic.arrived(CLIENT)
    world.quic.value_for(CLIENT)
    assert world.report(datagrams=10, handshakes_failed=1) == AltSvcReport(
        {}, {V4: Arrivals([CLIENT], True, 10, 1)}
    )
    assert world.report(datagrams=10, handshakes_failed=1) is None
    assert world.report(datagrams=12, handshakes_failed=2) == AltSvcReport(
        {}, {V4: Arrivals([], False, 2, 1)}
    )
