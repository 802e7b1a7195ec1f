"""Who is let in: every rule by itself, and that the counts come back to nothing."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import structlog
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config import limits
from quicedge.quic.admission import Admission, Decision, Verdict
from quicedge.quic.tokens import TokenKeys
from quicedge.shares.connections import AdmissionReason, ConnectionRules
from quicedge.shares.prefixes import AccessList, packed, prefix_of
from quicedge.shares.rates import RateTable
from quicedge.telemetry.bounded_log import BoundedLog
from tests.support import world as worlds
from tests.support.world import CLIENT, NOW, Path, World, is_connected

ONE, NEIGHBOUR, FAR = "192.0.2.1", "192.0.2.200", "198.51.100.9"


def admission(**rules: Any) -> Admission:
    return worlds.admission(**{"retry_threshold": 100, "max_half_open": 1000, **rules})


def decide(one: Admission, host: str, *, validated: bool = False, now: float = 0.0) -> Verdict:
    return one.decide(host, address_validated=validated, now=now)


def test_half_open_handshakes_ask_for_retry_and_a_valid_token_is_always_let_in() -> None:
    one = admission(retry_threshold=2, max_half_open=4)
    verdicts = []
    for _ in range(10):
        verdicts.append(decide(one, ONE).decision)
        one.note_opened(ONE)
    assert verdicts == [Decision.ACCEPT] * 2 + [Decision.RETRY] * 8
    assert decide(one, ONE, validated=True).decision is Decision.ACCEPT


def test_half_open_handshakes_of_validated_clients_ask_nobody_for_retry() -> None:
    one = admission(retry_threshold=2)
    for _ in range(100):
        assert decide(one, ONE, validated=True).decision is Decision.ACCEPT
        one.note_opened(ONE, address_validated=True)
    assert decide(one, FAR).decision is Decision.ACCEPT


def test_without_retry_unvalidated_half_open_handshakes_are_capped() -> None:
    one = admission(retry="off", max_half_open=4)
    for _ in range(4):
        assert decide(one, ONE).decision is Decision.ACCEPT
        one.note_opened(ONE)
    assert decide(one, ONE) == (Decision.DROP, "half_open")
    assert decide(one, ONE, validated=True).decision is Decision.ACCEPT


def test_a_crowded_network_meets_a_retry_and_a_valid_token_is_let_in() -> None:
    one = admission(max_half_open_per_prefix=2)
    for _ in range(2):
        one.note_opened(ONE)
    assert decide(one, NEIGHBOUR) == (Decision.RETRY, "prefix_half_open")
    assert decide(one, NEIGHBOUR, validated=True).decision is Decision.ACCEPT
    assert decide(one, FAR).decision is Decision.ACCEPT
    one.note_handshake_over(ONE)
    assert decide(one, NEIGHBOUR).decision is Decision.ACCEPT


def test_a_crowded_network_is_refused_when_retry_is_off() -> None:
    one = admission(retry="off", max_half_open_per_prefix=2)
    for _ in range(2):
        one.note_opened(ONE)
    assert decide(one, NEIGHBOUR) == (Decision.REFUSE, "prefix_half_open")
    assert decide(one, FAR).decision is Decision.ACCEPT


def test_a_thousand_connections_opened_at_once_from_one_address_all_succeed() -> None:
    """An office, CGNAT or a load test: with the limits as they stand when nobody sets them."""
    world = World(
        retry="auto",
        retry_threshold=limits.RETRY_THRESHOLD,
        max_half_open=limits.MAX_HALF_OPEN,
        max_half_open_per_prefix=limits.MAX_HALF_OPEN_PER_PREFIX,
        max_connections=limits.MAX_CONNECTIONS,
    )
    clients = {Path((CLIENT.remote[0], port)): world.client() for port in range(20_000, 21_000)}
    # Every first flight is there before any client has answered: so many handshakes are open.
    for _ in range(5):
        for number, (path, client) in enumerate(clients.items()):
            for data, _ in client.datagrams_to_send(NOW):
                world.endpoint.receive(data, path, NOW)
            if number % 100 == 99:
                world.turn()  # as much as is read in one
        answers, world.network.sent = world.network.sent, []
        for data, path in answers:
            clients[path].receive_datagram(data, ("server", 443), NOW)
    assert all(is_connected(client) for client in clients.values())
    assert world.endpoint.counters["retries"] == 1000 - limits.RETRY_THRESHOLD
    assert not any("dropped" in name for name in world.endpoint.counters)
    assert world.endpoint.admission.connections.half_open == 0


@pytest.mark.parametrize(
    ("rule", "blocked"),
    [("max_connections_per_address", ONE), ("max_connections_per_prefix", NEIGHBOUR)],
)
def test_connections_of_one_place_are_limited(rule: str, blocked: str) -> None:
    one = admission(**{rule: 3})
    for _ in range(3):
        one.note_opened(ONE)
        one.note_handshake_over(ONE)
    # Unproven addresses may be forged, and then the owner must not suffer for it.
    assert decide(one, blocked).decision is Decision.RETRY
    assert decide(one, blocked, validated=True).decision is Decision.REFUSE
    assert decide(one, FAR).decision is Decision.ACCEPT
    one.note_closed(ONE)
    assert decide(one, blocked).decision is Decision.ACCEPT


def test_connections_in_all_are_limited() -> None:
    one = admission(max_connections=1)
    one.note_opened(ONE)
    assert decide(one, FAR, validated=True) == (Decision.REFUSE, "connections")


def test_who_is_not_let_in_learns_it_at_once() -> None:
    world = World(max_connections=1)
    world.talk(world.client())
    late = world.client()
    world.talk(late, path=Path(("198.51.100.7", 7)))
    assert late._close_event is not None
    assert late._close_event.error_code == QuicErrorCode.CONNECTION_REFUSED
    assert len(world.endpoint.connections) == 1


@pytest.mark.parametrize("rules", [{"max_connections": 1}, {"retry": "always"}])
def test_answers_to_those_not_let_in_are_limited_in_rate(rules: dict[str, Any]) -> None:
    """Each costs a key derivation, and a source may be forged."""
    world = World(**rules)
    world.endpoint.admission.note_opened(FAR)
    client = world.client()
    token = TokenKeys(b"another secret").seal_retry(CLIENT.remote, b"o" * 8, b"c" * 8, NOW)
    client._peer_token = token
    (first, *_) = [data for data, _ in client.datagrams_to_send(NOW)]
    sent = sum(len(world.receive(first)) for _ in range(2 * limits.REFUSALS_PER_SECOND))
    assert sent == limits.REFUSALS_PER_SECOND


def test_handshakes_per_second_are_limited_and_come_back() -> None:
    one = admission(handshakes_per_second=5)
    first = [decide(one, ONE, now=10.0).decision for _ in range(6)]
    assert first == [Decision.ACCEPT] * 5 + [Decision.DROP]
    assert decide(one, ONE, now=10.25).decision is Decision.ACCEPT
    one = admission(handshakes_per_second_per_prefix=1)
    assert decide(one, ONE, now=10.0).decision is Decision.ACCEPT
    assert decide(one, NEIGHBOUR, now=10.0).reason == "prefix_handshake_rate"
    assert decide(one, FAR, now=10.0).decision is Decision.ACCEPT


def test_while_draining_newcomers_are_refused_at_once_and_no_retry_is_claimed() -> None:
    world = World(retry="always")
    world.endpoint.admission.connections.closed = AdmissionReason.DRAINING
    late = world.client()
    with structlog.testing.capture_logs() as lines:
        world.talk(late)
    assert late._close_event is not None
    assert late._close_event.error_code == QuicErrorCode.CONNECTION_REFUSED
    assert [(line["event"], line["reason"]) for line in lines] == [("clients refused", "draining")]
    assert world.endpoint.counters["retries"] == 0


def test_denied_clients_cost_neither_state_nor_an_answer() -> None:
    world = World(access=AccessList(deny=["192.0.2.0/24"]), retry="always")
    answers = []
    for data, _ in world.client().datagrams_to_send(NOW):
        answers += world.receive(data)
    assert answers == []
    assert world.endpoint.counters["dropped_denied"] == 1
    assert not world.endpoint.connections
    client = world.client()
    world.endpoint.admission.connections.configure(ConnectionRules())
    world.talk(client)
    assert len(world.endpoint.connections) == 1


def test_counts_return_to_nothing_however_connections_end() -> None:
    world = World()
    done, silent = world.client(), world.client()
    world.talk(done)
    for data, _ in silent.datagrams_to_send(NOW):
        world.receive(data, path=Path(("2001:db8::1", 5)))
    world.receive(b"\xc0\0\0\0\x01\x08" + bytes(1200))
    one = world.endpoint.admission.connections
    assert (one.open, one.half_open) == (2, 1)
    done.close()
    world.talk(done)
    world.endpoint.handle_timers(NOW + 100)
    world.endpoint.flush(NOW + 100)
    assert not world.endpoint.connections
    assert not one


def test_rates_are_remembered_for_so_many_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicedge.shares.rates.MAX_PREFIX_RATES", 10)
    table = RateTable(1.0)
    for number in range(1000):
        assert table.allow(number.to_bytes(3, "big"), 0.0)
    assert len(table._buckets) == 10
    assert limits.MAX_PREFIX_RATES > 10


def test_a_refusal_is_logged_at_a_bounded_rate() -> None:
    said: list[tuple[str, int]] = []
    log = BoundedLog(lambda reason, count: said.append((reason, count)), 10.0)
    for tenth in range(300):
        log.note("denied", tenth / 10)
    assert said == [("denied", 1), ("denied", 100), ("denied", 100)]


def test_the_longest_match_decides() -> None:
    rules = AccessList(allow=["10.0.0.0/8", "2001:db8::/32"], deny=["10.1.0.0/16", "10.2.3.4"])
    assert rules.permits(packed("10.9.9.9"))
    assert not rules.permits(packed("10.1.2.3"))
    assert not rules.permits(packed("10.2.3.4"))
    assert rules.permits(packed("10.2.3.5"))
    assert not rules.permits(packed("192.0.2.1")), "an allow list excludes the rest"
    assert rules.permits(packed("2001:db8::9"))
    assert rules.permits(packed("::ffff:10.9.9.9")), "mapped addresses are IPv4"
    assert not rules.permits(b"")


_V4 = st.ip_addresses(v=4)


@given(_V4, st.lists(st.tuples(_V4, st.integers(0, 32)), max_size=6))
def test_matching_agrees_with_the_library(address: Any, nets: list[tuple[Any, int]]) -> None:
    networks = [ipaddress.ip_network((int(base), bits), strict=False) for base, bits in nets]
    expected = max((n.prefixlen for n in networks if address in n), default=-1)
    found = AccessList(deny=map(str, networks))._deny.longest(packed(str(address)))
    assert found == expected


@given(st.text(max_size=40))
def test_what_is_no_address_matches_nothing(text: str) -> None:
    assert len(packed(text)) in (0, 4, 16)
    assert len(prefix_of(packed(text))) in (0, 3, 7)
