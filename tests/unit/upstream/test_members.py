"""Servers that come and go: what runs ends where it began, what waits goes elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from quicedge.config import limits
from quicedge.config.schema import Discover, OriginServer
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.upstream.address import address_of
from quicedge.upstream.discovered import Answer, Discovered, DiscoveryError
from quicedge.upstream.group import Upstream
from tests.support.certs import write_certificate
from tests.support.origins import (
    OK,
    Origin,
    eventually,
    fetch,
    holding,
    origin,
    request,
    says,
    send,
)
from tests.support.peers import free_port

SERVICE = OriginServer(url="http://_http._tcp.app.test", discover=Discover.SRV)


def port_of(origin: Origin) -> str:
    return origin.url.rpartition(":")[2]


def at(origin: Origin, weight: float = 1.0, priority: int = 0) -> Discovered:
    return Discovered("127.0.0.1", int(port_of(origin)), weight, priority)


class Dns:
    """A resolver that says what the test has it say; at once, or when it is `ready`."""

    def __init__(self, *servers: Discovered) -> None:
        self.servers = frozenset(servers)
        self.ready = asyncio.Event()
        self.ready.set()
        self.look_ups = 0

    async def services(self, name: str) -> Answer:
        await self.ready.wait()
        self.look_ups += 1
        if not self.servers:
            raise DiscoveryError(f"{name} has no server")
        return Answer(self.servers, 0)

    async def addresses(self, name: str, port: int) -> Answer:
        raise AssertionError("a service is asked for")

    async def become(self, group: Upstream, *servers: Discovered) -> None:
        """Wait until the group has noticed that these are the servers now."""
        self.servers = frozenset(servers)
        ports = sorted(server.port for server in servers)
        await eventually(lambda: sorted(s.address.port for s in group.servers) == ports)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISCOVERY_MIN_TTL", 0.01)
    monkeypatch.setattr(limits, "DISCOVERY_RETRY", 0.01)


@asynccontextmanager
async def discovering(dns: Dns, *more: OriginServer, **settings: object) -> AsyncIterator[Upstream]:
    servers: list[str | OriginServer] = [SERVICE, *more]
    config = UpstreamConfig(servers=servers, retries=0, **settings)  # type: ignore[arg-type]
    group = Upstream("app", config, resolver=dns)
    try:
        yield group
    finally:
        await group.close(1)


async def told(group: Upstream, count: int) -> Counter[str]:
    servers = []
    for _ in range(count):
        stream, recorder = send(group, request())
        assert (await recorder.over()).status == 200
        servers.append(stream.server.rpartition(":")[2])
    return Counter(servers)


async def test_requests_wait_for_the_first_servers() -> None:
    async with origin(says(OK)) as server:
        dns = Dns(at(server))
        dns.ready.clear()
        async with discovering(dns) as group:
            sent = [send(group, request(body=True), b"x") for _ in range(3)]
            aborted, _ = send(group, request())
            await asyncio.sleep(0.05)
            assert not any(recorder.events for _, recorder in sent)
            aborted.abort()
            dns.ready.set()
            for stream, recorder in sent:
                assert (await recorder.over()).status == 200
                assert stream.queue_seconds >= 0.04
            assert server.connections <= 3


async def test_without_servers_requests_fail_at_once_but_not_those_of_others() -> None:
    dns = Dns()
    async with origin(says(OK)) as server, discovering(dns) as group:
        waiting = send(group, request())[1]
        assert (await waiting.over()).kind == "no_server"
        assert (await fetch(group, request())).kind == "no_server"
        await dns.become(group, at(server))
        assert (await fetch(group, request())).status == 200
    spare = free_port()
    async with (
        origin(says(OK), port=spare),
        discovering(Dns(), OriginServer(url=f"http://127.0.0.1:{spare}", tier=1)) as group,
    ):
        assert (await fetch(group, request())).status == 200


async def test_a_request_does_not_wait_for_a_silent_resolver_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dns = Dns()
    dns.ready.clear()
    monkeypatch.setattr("quicedge.upstream.selection.UPSTREAM_MAX_WAITING", 2)
    async with discovering(dns, connect_timeout=0.05) as group:
        waiting = [send(group, request())[1] for _ in range(2)]
        assert (await fetch(group, request())).kind == "no_server", "too many wait"
        for recorder in waiting:
            assert (await recorder.over()).kind == "no_server"


async def test_what_runs_on_a_server_that_goes_away_ends_there() -> None:
    go = asyncio.Event()
    async with origin(holding(go)) as old, origin(says(OK)) as new:
        dns = Dns(at(old))
        async with discovering(dns) as group:
            stream, running = send(group, request())
            await eventually(lambda: group.stats().get(stream.server, {}).get("active") == 1)
            await dns.become(group, at(new))
            assert group.stats()[stream.server]["up"] == 0
            assert group.stats()[stream.server]["active"] == 1
            assert set(await told(group, 3)) == {port_of(new)}
            go.set()
            assert (await running.over()).status == 200
            await eventually(lambda: stream.server not in group.stats())
            assert old.connections == 1


async def test_what_waits_for_a_server_that_goes_away_goes_to_another() -> None:
    """Not as a retry: there are none here."""
    go = asyncio.Event()
    async with origin(holding(go)) as old, origin(says(OK)) as new:
        dns = Dns(at(old))
        async with discovering(dns, max_connections=1) as group:
            first, running = send(group, request())
            await eventually(lambda: group.stats().get(first.server, {}).get("active") == 1)
            waiting = [send(group, request("POST", body=True), b"body") for _ in range(3)]
            await dns.become(group, at(new))
            for stream, recorder in waiting:
                assert (await recorder.over()).status == 200
                assert stream.retries == 0
            assert not running.is_over
            go.set()
            assert (await running.over()).status == 200


async def test_what_waits_when_all_servers_go_away_stays_with_the_last_ones() -> None:
    async with origin(says(OK)) as server:
        dns = Dns(at(server))
        async with discovering(dns) as group:
            assert (await fetch(group, request())).status == 200
            dns.servers = frozenset()
            failures = group.discoveries()[0].failures
            await eventually(lambda: group.discoveries()[0].failures > failures)
            assert (await fetch(group, request())).status == 200


async def test_a_server_that_comes_back_is_used_again() -> None:
    go = asyncio.Event()
    async with origin(holding(go)) as one, origin(says(OK)) as other:
        dns = Dns(at(one))
        async with discovering(dns) as group:
            _, running = send(group, request())
            await eventually(lambda: any(s["active"] for s in group.stats().values()))
            await dns.become(group, at(other))
            await dns.become(group, at(one))
            go.set()
            assert set(await told(group, 2)) == {port_of(one)}
            assert (await running.over()).status == 200


async def test_servers_that_stay_keep_their_connections() -> None:
    async with origin(says(OK)) as one, origin(says(OK)) as other:
        dns = Dns(at(one))
        async with discovering(dns) as group:
            await told(group, 2)
            await dns.become(group, at(one), at(other))
            await told(group, 4)
            await dns.become(group, at(one))
            await told(group, 2)
            assert one.connections == 1


async def test_weights_and_priorities_are_those_of_the_records() -> None:
    async with origin(says(OK)) as one, origin(says(OK)) as two, origin(says(OK)) as spare:
        dns = Dns(at(one, 1, 5), at(two, 3, 5), at(spare, 1, 9))
        async with discovering(dns) as group:
            assert await told(group, 8) == {port_of(one): 2, port_of(two): 6}
            dns.servers = frozenset((at(one, 3, 5), at(two, 1, 5), at(spare, 1, 9)))
            weights = {s.address.port: s.base_weight for s in group.servers}
            await eventually(
                lambda: {s.address.port: s.base_weight for s in group.servers} != weights
            )
            assert await told(group, 8) == {port_of(one): 6, port_of(two): 2}
            assert (one.connections, two.connections) == (1, 1)
            for server in group.servers:
                if server.tier == 5:
                    server.health.eject(60)
            assert set(await told(group, 2)) == {port_of(spare)}


async def test_a_new_server_comes_to_its_share_slowly_but_the_first_ones_do_not() -> None:
    async with origin(says(OK)) as one, origin(says(OK)) as two:
        dns = Dns(at(one))
        async with discovering(dns, slow_start=3600) as group:
            await fetch(group, request())
            await dns.become(group, at(one), at(two))
            shares = {s.address.port: s.health.share for s in group.servers}
            assert shares[int(port_of(one))] == 1
            assert shares[int(port_of(two))] == pytest.approx(limits.SLOW_START_SHARE, abs=0.05)
            assert (await told(group, 22))[port_of(two)] <= 3


async def test_a_reload_knows_the_servers_before_dns_has_answered() -> None:
    async with origin(says(OK)) as server:
        dns = Dns(at(server))
        async with discovering(dns) as group:
            await fetch(group, request())
            dns.ready.clear()
            config = UpstreamConfig(servers=[SERVICE], retries=3)
            following = Upstream("app", config, previous=group, resolver=dns)
            assert (await fetch(following, request())).status == 200
            await following.close()
            other = UpstreamConfig(servers=[SERVICE], resolvers=["127.0.0.1"], connect_timeout=0.05)
            elsewhere = Upstream("app", other, previous=group, resolver=dns)
            assert (await fetch(elsewhere, request())).kind == "no_server"
            await elsewhere.close()
            dns.ready.set()


async def test_a_client_gets_no_cookie_of_a_server_that_has_left() -> None:
    go = asyncio.Event()
    async with origin(holding(go)) as one, origin(holding(go)) as two, origin(says(OK)) as new:
        dns = Dns(at(one), at(two))
        async with discovering(dns, sticky_cookie="backend") as group:
            sent = [send(group, request()) for _ in range(2)]
            await eventually(lambda: sum(s["active"] for s in group.stats().values()) == 2)
            await dns.become(group, at(one), at(new))
            go.set()
            cookies = {}
            for stream, recorder in sent:
                assert (await recorder.over()).status == 200
                assert recorder.head is not None
                names = [name for name, _ in recorder.head.fields]
                cookies[stream.server.rpartition(":")[2]] = b"set-cookie" in names
            assert cookies == {port_of(one): True, port_of(two): False}


async def test_requests_that_wait_for_servers_fail_when_the_upstream_ends() -> None:
    dns = Dns()
    dns.ready.clear()
    async with discovering(dns, connect_timeout=60) as group:
        waiting = send(group, request())[1]
        await asyncio.sleep(0)
        group.retire()
        assert (await asyncio.wait_for(waiting.over(), 5)).kind == "no_server"


async def test_health_checks_follow_the_servers() -> None:
    async with origin(says(OK)) as one, origin(says(OK)) as two:
        dns = Dns(at(one))
        settings = {"health_path": "/up", "health_interval": 0.02}
        async with discovering(dns, **settings) as group:
            await eventually(lambda: one.connections > 0)
            await dns.become(group, at(two))
            await eventually(lambda: two.connections > 0)
            (server,) = group.servers
            assert server.health.is_up


async def test_certificates_are_for_the_name_not_for_the_address(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "app.test")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    names: list[str | None] = []
    tls.sni_callback = lambda sock, name, context: names.append(name)
    async with origin(says(OK), tls=tls) as server:
        port = int(port_of(server))
        dns = Dns(Discovered("127.0.0.1", port))
        for url, status in (("https://_http._tcp.app.test", 200), ("https://other.test", None)):
            config = UpstreamConfig(
                servers=[OriginServer(url=url, discover=Discover.SRV)], tls_ca=str(cert)
            )
            group = Upstream("app", config, resolver=dns)
            recorder = await fetch(group, request())
            if status is None:
                assert recorder.kind == "tls"
            else:
                assert recorder.status == status
            await group.close()
    assert names == ["app.test", "other.test"]


def test_the_address_of_a_member_is_that_of_its_name_for_requests_of_the_edge() -> None:
    named = address_of(OriginServer(url="https://app.test:8443", discover=Discover.ADDRESSES))
    member = named.at("2001:db8::1", 8443)
    assert (member.text, member.authority) == ("[2001:db8::1]:8443", "app.test:8443")
    service = address_of(OriginServer(url="http://app.service.consul", discover=Discover.SRV))
    assert service.at("192.0.2.1", 80).authority == "app.service.consul:80"
