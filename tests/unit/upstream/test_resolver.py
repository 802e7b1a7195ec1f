"""What DNS says about servers: addresses, services, and answers that fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.config.schema import Discover, OriginServer
from quicedge.upstream import resolver as module
from quicedge.upstream.discovered import Discovered, DiscoveryError, look_up
from quicedge.upstream.dns_server import DnsServer
from quicedge.upstream.resolver import DnsResolver
from tests.support.peers import free_port
from tests.support.zone import Asked, Zone, dns_zone


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with dns_zone() as running:
        yield running


def asking(zone: Zone) -> DnsResolver:
    return DnsResolver([HostPort("127.0.0.1", zone.port)])


async def test_the_addresses_of_both_families_are_servers(zone: Zone) -> None:
    zone.names("app.test", "192.0.2.1", "192.0.2.2")
    zone.names("app.test", "2001:db8::1", kind="AAAA")
    answer = await asking(zone).addresses("app.test", 8080)
    assert answer.servers == {
        Discovered("192.0.2.1", 8080),
        Discovered("192.0.2.2", 8080),
        Discovered("2001:db8::1", 8080),
    }
    assert answer.ttl == 60
    assert not answer.problem


async def test_a_service_names_ports_weights_and_priorities(zone: Zone) -> None:
    records = ["10 60 8001 a.test.", "10 0 8002 b.test.", "20 5 8003 b.test."]
    zone.names("_http._tcp.app.test", *records, kind="SRV")
    zone.names("a.test", "192.0.2.1", "192.0.2.2")
    zone.names("b.test", "192.0.2.3")
    answer = await asking(zone).services("_http._tcp.app.test")
    assert answer.servers == {
        # One target's addresses share its weight.
        Discovered("192.0.2.1", 8001, 30, 10),
        Discovered("192.0.2.2", 8001, 30, 10),
        Discovered("192.0.2.3", 8002, limits.DISCOVERY_LEAST_WEIGHT, 10),
        Discovered("192.0.2.3", 8003, 5, 20),
    }


async def test_a_server_that_is_named_twice_is_one(zone: Zone) -> None:
    records = ["1 2 80 a.test.", "1 3 80 b.test.", "0 1 80 c.test.", "5 1 80 c.test."]
    zone.names("_http._tcp.app.test", *records, kind="SRV")
    zone.names("a.test", "192.0.2.1")
    zone.names("b.test", "192.0.2.1")
    zone.names("c.test", "192.0.2.3")
    answer = await asking(zone).services("_http._tcp.app.test")
    assert answer.servers == {
        Discovered("192.0.2.1", 80, 5, 1),
        Discovered("192.0.2.3", 80, 1, 0),
    }


async def test_an_answer_that_a_datagram_cannot_hold_comes_over_tcp(zone: Zone) -> None:
    zone.truncated = {("app.test", "A")}
    hosts = [f"192.0.2.{number}" for number in range(200)]
    zone.names("app.test", *hosts)
    answer = await asking(zone).addresses("app.test", 80)
    assert {server.host for server in answer.servers} == set(hosts)
    assert Asked("app.test", "A", over_tcp=True) in zone.asked


async def test_a_long_answer_is_refused_before_it_is_read(zone: Zone) -> None:
    zone.truncated = {("app.test", "A")}
    zone.names("app.test", *(f"10.0.{n // 256}.{n % 256}" for n in range(2000)))
    with pytest.raises(DiscoveryError, match="bytes"):
        await asking(zone).addresses("app.test", 80)
    longest = 64 * limits.DISCOVERY_SERVERS  # bytes of as many records that are long ones
    assert longest <= limits.DISCOVERY_ANSWER


async def test_what_is_no_answer_to_the_query_is_none(zone: Zone) -> None:
    zone.names("app.test", "192.0.2.1")
    answer = zone.answer

    async def forged(wire: bytes, over_tcp: bool) -> bytes | None:
        """With the number of the query, about another name; then what is no message at all."""
        response = await answer(wire, over_tcp)
        assert response is not None
        if len(zone.asked) <= 2:
            return response.replace(b"\3app", b"\3bad")
        return response[:2] + b"\xff" * 20

    zone.answer = forged  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(DiscoveryError):
            await asking(zone).addresses("app.test", 80)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 400), st.binary(max_size=8)), max_size=4),
    st.integers(0, 400),
    st.sampled_from(["A", "AAAA", "SRV", "CNAME", "TXT"]),
)
def test_whatever_comes_off_the_wire_is_an_answer_or_none(
    edits: list[tuple[int, bytes]], cut: int, kind: str
) -> None:
    records = {"A": "192.0.2.1", "AAAA": "2001:db8::1", "SRV": "0 1 80 a.test.", "TXT": "x"}

    async def over_udp(server: DnsServer, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        name = query.question[0].name
        found = [records.get(kind, "app.test.")] * 3
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *found))
        data = bytearray(response.to_wire())
        for at, piece in edits:
            data[at : at + len(piece)] = piece
        return bytes(data[: len(data) - cut] if cut < len(data) else data)

    async def main() -> None:
        resolver = DnsResolver([HostPort("127.0.0.1", 53)])
        for looking_up in (resolver.addresses("app.test", 80), resolver.services("app.test")):
            try:
                answer = await looking_up
            except DiscoveryError:
                continue
            assert all(ip_address(server.host) for server in answer.servers)
            assert answer.servers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DnsServer, "_over_udp", over_udp)
        patch.setattr(DnsServer, "_over_tcp", over_udp)
        asyncio.run(main())


async def test_when_nobody_listens_the_next_resolver_is_asked_at_once(zone: Zone) -> None:
    zone.names("app.test", "192.0.2.1")
    nobody = HostPort("127.0.0.1", free_port())
    resolver = DnsResolver([nobody, HostPort("127.0.0.1", zone.port)])
    started = time.monotonic()
    await resolver.addresses("app.test", 80)
    assert time.monotonic() - started < limits.DISCOVERY_TRY


async def test_an_answer_without_servers_is_none(zone: Zone) -> None:
    zone.names("text.test", '"no address"', kind="TXT")
    zone.names("_http._tcp.closed.test", "0 0 0 .", kind="SRV")
    zone.names("_http._tcp.lost.test", "0 0 80 nowhere.test.", kind="SRV")
    resolver = asking(zone)
    for name in ("nowhere.test", "text.test"):
        with pytest.raises(DiscoveryError, match=f"{name} has no address"):
            await resolver.addresses(name, 80)
    for name in ("_http._tcp.nowhere.test", "_http._tcp.closed.test"):
        with pytest.raises(DiscoveryError, match=f"{name} has no server"):
            await resolver.services(name)
    with pytest.raises(DiscoveryError, match=r"no server of _http._tcp.lost.test has an address"):
        await resolver.services("_http._tcp.lost.test")


async def test_a_broken_resolver_is_no_answer(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    zone.broken = {("app.test", kind) for kind in ("A", "AAAA", "SRV")}
    with pytest.raises(DiscoveryError, match="SERVFAIL"):
        await asking(zone).addresses("app.test", 80)
    with pytest.raises(DiscoveryError, match="SERVFAIL"):
        await asking(zone).services("app.test")
    monkeypatch.setattr(limits, "DISCOVERY_TRY", 0.05)
    monkeypatch.setattr(limits, "DISCOVERY_QUERY", 0.1)
    zone.is_silent = True
    with pytest.raises(DiscoveryError, match="no resolver answers"):
        await asking(zone).addresses("app.test", 80)


async def test_of_a_family_that_cannot_be_looked_up_the_last_addresses_stay(zone: Zone) -> None:
    now = 0.0
    resolver = DnsResolver([HostPort("127.0.0.1", zone.port)], clock=lambda: now)
    zone.names("app.test", "192.0.2.1")
    zone.names("app.test", "2001:db8::1", kind="AAAA")
    await resolver.addresses("app.test", 80)
    zone.names("app.test", "192.0.2.2")
    zone.broken = {("app.test", "AAAA")}
    now = 61.0
    answer = await resolver.addresses("app.test", 80)
    assert {server.host for server in answer.servers} == {"192.0.2.2", "2001:db8::1"}
    assert "AAAA" in answer.problem
    zone.broken = set()
    del zone.records["app.test", "AAAA"]
    answer = await resolver.addresses("app.test", 80)
    assert {server.host for server in answer.servers} == {"192.0.2.2"}
    assert not answer.problem


async def test_the_addresses_of_a_target_are_asked_for_when_they_expire(zone: Zone) -> None:
    now = 0.0
    resolver = DnsResolver([HostPort("127.0.0.1", zone.port)], clock=lambda: now)
    zone.names("_http._tcp.app.test", "0 1 80 a.test.", kind="SRV")
    zone.names("a.test", "192.0.2.1")
    assert (await resolver.services("_http._tcp.app.test")).ttl == 60
    now = 59.0
    assert (await resolver.services("_http._tcp.app.test")).ttl == 1
    assert zone.asked.count(Asked("a.test", "A")) == 1
    now = 61.0
    await resolver.services("_http._tcp.app.test")
    assert zone.asked.count(Asked("a.test", "A")) == 2
    zone.ttl = 1_000_000
    now = 130.0
    assert (await resolver.services("_http._tcp.app.test")).ttl == limits.DISCOVERY_MAX_TTL


async def test_servers_queries_and_records_are_bounded(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DISCOVERY_SERVERS", 30)
    monkeypatch.setattr(limits, "DISCOVERY_RECORDS", 10)
    zone.delay = 0.005
    targets = [f"t{number:02}.test" for number in range(40)]
    for number, target in enumerate(targets):
        zone.names(target, f"192.0.2.{number}")
    records = [f"0 1 80 {target}." for target in targets]
    zone.names("_http._tcp.app.test", *records, kind="SRV")
    resolver = asking(zone)
    answer = await resolver.services("_http._tcp.app.test")
    assert {server.host for server in answer.servers} == {f"192.0.2.{n}" for n in range(30)}
    assert answer.problem == "40 servers, of which 30 are used"
    assert zone.most_answering <= limits.DISCOVERY_QUERIES
    assert len(resolver._known) <= 10
    zone.names("many.test", *(f"192.0.2.{number}" for number in range(40)))
    answer = await resolver.addresses("many.test", 80)
    assert len(answer.servers) == 30
    assert answer.problem == "40 servers, of which 30 are used"


async def test_a_service_of_as_many_servers_as_a_name_may_have_meets_no_bound(zone: Zone) -> None:
    """With names as long as those of Kubernetes, by a resolver that is a network away."""
    count = limits.DISCOVERY_SERVERS
    targets = [f"web-{number}.nginx.production.svc.cluster.local" for number in range(count)]
    service = OriginServer(url="http://_http._tcp.app.test", discover=Discover.SRV)
    for number, target in enumerate(targets):
        zone.names(target, f"10.0.{number // 256}.{number % 256}")
    records = [f"0 1 80 {target}." for target in targets]
    zone.names("_http._tcp.app.test", *records, kind="SRV")
    zone.truncated = {("_http._tcp.app.test", "SRV")}
    zone.delay = 0.002
    resolver = asking(zone)
    for _ in range(2):
        answer = await look_up(service, resolver)
        assert len(answer.servers) == count
        assert not answer.problem
    asked = Counter(zone.asked)
    assert {asked[Asked(target, "A")] for target in targets} == {1}, "the records are all kept"


async def test_the_system_s_resolvers_and_search_domains_apply_as_they_change(
    zone: Zone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DNS_PORT", zone.port)
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nsearch one.test two.test\noptions ndots:2\n")
    resolver = DnsResolver(resolv_conf=str(file), clock=time.monotonic)
    zone.names("app.two.test", "192.0.2.2")
    answer = await resolver.addresses("app", 80)
    assert {server.host for server in answer.servers} == {"192.0.2.2"}
    asked = [asked.name for asked in zone.asked if asked.kind == "A"]
    assert asked == ["app.one.test", "app.two.test"], "ndots: first with the search domains"
    zone.names("other.three.test", "192.0.2.3")
    file.write_text("nameserver 127.0.0.1\nsearch three.test\n")
    answer = await resolver.addresses("other", 80)
    assert {server.host for server in answer.servers} == {"192.0.2.3"}
    file.unlink()
    with pytest.raises(DiscoveryError, match=r"resolv\.conf"):
        await resolver.addresses("third", 80)


async def test_configured_resolvers_are_asked_for_names_as_they_are_written(zone: Zone) -> None:
    zone.names("app", "192.0.2.1")
    await asking(zone).addresses("app", 80)
    assert {asked.name for asked in zone.asked} == {"app"}
    with pytest.raises(DiscoveryError):
        await asking(zone).addresses("app..test", 80)


async def test_a_problem_names_the_resolver_and_what_it_did() -> None:
    refused = DnsResolver([HostPort("127.0.0.1", free_port())])
    with pytest.raises(DiscoveryError, match=r"app.test A: 127.0.0.1:\d+: Connection refused"):
        await refused.addresses("app.test", 80)
