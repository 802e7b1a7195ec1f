"""The emulated link on a clock of its own: rate, delay, queue, losses, rebinding."""

from __future__ import annotations

import random

import pytest

from interop.runner.faults import RandomLoss
from interop.runner.link import Link
from interop.runner.nat import RebindingNat
from interop.runner.packet import Packet
from interop.runner.scenario import parse_scenario
from tests.support.frames import udp_frame

CLIENT, SERVER = "193.167.0.100", "193.167.100.100"
BIG = 1200  # payload bytes


def from_client(port: int = 5000, size: int = BIG) -> Packet:
    return Packet(udp_frame(CLIENT, port, SERVER, 443, bytes(size)))


def to_client(address: str = CLIENT, port: int = 5000, payload: bytes = bytes(BIG)) -> Packet:
    return Packet(udp_frame(SERVER, 443, address, port, payload))


def drain(link: Link) -> list[float]:
    """The arrival times of everything on its way."""
    times = []
    while (upcoming := link.next_arrival()) is not None:
        times += [upcoming] * len(link.due(upcoming))
    return times


def test_serialisation_and_delay() -> None:
    link = Link(parse_scenario("simple-p2p --delay=15ms --bandwidth=10Mbps --queue=25"))
    for _ in range(3):
        assert link.send(from_client(), "to_server", 1.0)
    one = (20 + 8 + BIG + 2) * 8 / 10e6
    assert drain(link) == pytest.approx([1.0 + 0.015 + one * count for count in (1, 2, 3)])


def test_nothing_arrives_early() -> None:
    link = Link(parse_scenario("simple-p2p"))
    link.send(from_client(), "to_server", 0.0)
    assert link.due(0.015) == []
    assert len(link.due(0.017)) == 1


def test_the_queue_drops_its_tail() -> None:
    """25 in the queue, one in the device's queue, one on the wire."""
    link = Link(parse_scenario("simple-p2p --queue=25"))
    sent = [link.send(from_client(), "to_server", 0.0) for _ in range(30)]
    assert sent == [True] * 27 + [False] * 3
    assert len(drain(link)) == 27
    assert link.send(from_client(), "to_server", 10.0)


def test_directions_do_not_share_a_queue() -> None:
    link = Link(parse_scenario("simple-p2p --queue=1"))
    assert [link.send(from_client(), "to_server", 0.0) for _ in range(4)] == [True] * 3 + [False]
    assert link.send(to_client(), "to_client", 0.0)


def test_drop_list_counts_udp_from_one() -> None:
    link = Link(parse_scenario("droplist --drops_to_server=2,3"))
    for size in (10, 20, 30, 40):
        link.send(from_client(size=size), "to_server", 0.0)
    arrived = [len(packet.payload) for _, packet in link.due(1.0)]
    assert arrived == [10, 40]


def test_blackhole_swallows_one_window_both_ways() -> None:
    link = Link(parse_scenario("blackhole --delay=0ms --on=5s --off=2s"))
    for at in (4.9, 5.1, 6.9, 7.1):
        link.send(from_client(size=1), "to_server", at)
        link.send(to_client(payload=b"x"), "to_client", at)
    assert drain(link) == pytest.approx([4.9, 4.9, 7.1, 7.1], abs=0.01)


def test_losses_come_at_the_rate_and_never_in_longer_bursts() -> None:
    scenario = parse_scenario("drop-rate --rate_to_server=30 --burst_to_server=3")
    loss = RandomLoss(scenario, random.Random(7))
    packet = from_client()
    lost = [loss.loses(packet, "to_server", 0.0) for _ in range(20_000)]
    assert 0.27 < sum(lost) / len(lost) < 0.31
    runs = "".join("x" if item else " " for item in lost).split()
    assert max(map(len, runs)) == 3
    assert not any(loss.loses(packet, "to_client", 0.0) for _ in range(1000))


def test_the_same_seed_loses_the_same() -> None:
    text = "drop-rate --rate_to_server=30 --seed=3"
    runs = []
    for _ in range(2):
        link = Link(parse_scenario(text))
        for size in range(1, 20):
            link.send(from_client(size=size), "to_server", 0.0)
        runs.append([len(packet.payload) for _, packet in link.due(1.0)])
    assert runs[0] == runs[1]
    assert len(runs[0]) < 19


def test_corrupted_packets_are_lost_as_in_the_deployed_simulator() -> None:
    link = Link(parse_scenario("corrupt-rate --rate_to_client=100"))
    link.send(to_client(), "to_client", 0.0)
    link.send(to_client(payload=b"\x80\0\0\0\0" + bytes(20)), "to_client", 0.0)
    arrived = link.due(1.0)
    assert len(arrived) == 1
    assert arrived[0][1].is_version_negotiation


def test_corruption_delivered_on_demand_changes_one_byte() -> None:
    link = Link(parse_scenario("corrupt-rate --rate_to_client=100 --deliver-corrupted"))
    link.send(to_client(payload=bytes([0x40]) * 100), "to_client", 0.0)
    ((_, packet),) = link.due(1.0)
    changed = [index for index, byte in enumerate(packet.payload) if byte != 0x40]
    assert len(changed) == 1
    assert changed[0] < 51


def rebinding(change_address: bool) -> RebindingNat:
    return RebindingNat(1.0, 5.0, change_address, random.Random(1))


def seen(nat: RebindingNat, now: float) -> tuple[str, int]:
    packet = from_client()
    nat.outbound(packet, now)
    return str(packet.source), packet.source_port


def test_rebinding_changes_the_port_at_its_times() -> None:
    nat = rebinding(False)
    assert seen(nat, 0.0) == (CLIENT, 5000)
    first, again, second = seen(nat, 1.0), seen(nat, 5.9), seen(nat, 6.0)
    assert first == again
    assert len({5000, first[1], second[1]}) == 3
    assert first[0] == second[0] == CLIENT


def test_rebinding_is_timed_from_the_first_flow() -> None:
    nat = rebinding(False)
    assert seen(nat, 4.0) == (CLIENT, 5000)
    assert seen(nat, 4.9) == (CLIENT, 5000)
    assert seen(nat, 5.0) != (CLIENT, 5000)


def test_an_old_binding_is_gone_and_the_new_one_leads_home() -> None:
    nat = rebinding(True)
    seen(nat, 0.0)
    address, port = seen(nat, 2.0)
    assert address.startswith("193.167.0.")
    assert address != CLIENT
    assert not nat.inbound(to_client(CLIENT, 5000), 2.0)
    packet = to_client(address, port)
    assert nat.inbound(packet, 2.0)
    assert (str(packet.destination), packet.destination_port) == (CLIENT, 5000)


def test_ipv6_is_not_translated() -> None:
    nat = rebinding(True)
    packet = Packet(udp_frame("fd00::1", 5000, "fd00::2", 443, b"x"))
    nat.outbound(packet, 2.0)
    assert packet.source_port == 5000
    assert nat.inbound(Packet(udp_frame("fd00::2", 443, "fd00::1", 9, b"x")), 2.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is none of"),
        ("teleport", "'teleport' is none of"),
        ("simple-p2p --colour=red", "--colour=red"),
        ("simple-p2p --delay=15", "wants a number"),
        ("simple-p2p --queue=many", "--queue=many"),
        ("droplist --drops_to_server=1,x", "drops_to_server"),
    ],
)
def test_a_bad_scenario_names_the_word(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_scenario(text)


def test_every_case_has_a_scenario_that_is_understood() -> None:
    from interop.runner.cases import CASES

    for case in CASES:
        assert parse_scenario(case.scenario).bandwidth == 10_000_000
