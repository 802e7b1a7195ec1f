"""Runs of a sender that its window limits: long ones, sent when ACKs have made room for them."""

from __future__ import annotations

import pytest

from quicedge.config.limits import HOLD_IN_FLIGHT
from quicedge.quic.connection import Connection
from quicedge.quic.connection.packer import Transmit
from quicedge.quic.frames import Epoch
from tests.support.quicpair import make_pair
from tests.support.simnet import Pair

WINDOW = 120_000


class Sender:
    """A server that has filled its window with a response, on a path of half a millisecond."""

    def __init__(self, nbytes: int, window: int = WINDOW) -> None:
        self.pair: Pair = make_pair(own_client=True, mtu_ceiling=1200)
        server: Connection = self.pair.server.connection
        self.server = server
        self.pair.client.connection.send_stream_data(0, b"?")
        self.pair.run(lambda: server.streams.get(0) is not None and server.handshake_confirmed)
        self.pair.run(lambda: not self.pair._wire)
        self.pair.now += 1.0
        server.poll_transmit(self.pair.now)
        self.recovery = server.recovery
        self.recovery.rtt.smoothed = self.recovery.rtt.latest = 0.0005
        self.window = window
        self.size = server.max_datagram_size
        server.send_stream_data(0, bytes(nbytes), end_stream=True)
        self.first = server.spaces[Epoch.ONE_RTT].next_number
        self.sent: list[Transmit] = []
        for _ in range(4):
            self.send()

    def send(self) -> list[Transmit]:
        """What it sends now."""
        self.pair.now += 0.0001
        self.recovery.controller.congestion_window = self.window
        self.recovery._set_pace()
        sent = self.server.poll_transmit(self.pair.now)
        self.sent += sent
        return sent

    def acknowledge(self, packets: int) -> list[Transmit]:
        """What it sends once the next packets of the response are acknowledged."""
        stop = self.first + packets
        space = self.server.spaces[Epoch.ONE_RTT]
        self.recovery.on_ack([(0, stop)], 0.0, self.pair.now, space)
        self.first = stop
        return self.send()


def test_a_run_waits_until_acks_have_made_room_for_a_long_one() -> None:
    sender = Sender(10 * WINDOW)
    assert sender.recovery.bytes_in_flight > WINDOW - sender.size
    for _ in range(3):
        assert not sender.acknowledge(10)
    assert sender.recovery.pacer.worth > 30 * sender.size
    runs = sender.acknowledge(20)
    assert len(runs[0].data) > 40 * sender.size
    assert sum(len(run.data) for run in runs) > 49 * sender.size


def test_what_is_left_of_a_response_does_not_wait() -> None:
    sender = Sender(WINDOW + 3000)
    (run,) = sender.acknowledge(10)
    assert not sender.server.streams.unsent(0)
    assert len(run.data) < 10 * sender.size


def test_with_little_in_flight_a_sender_does_not_wait_for_acks() -> None:
    sender = Sender(10 * WINDOW, window=HOLD_IN_FLIGHT)
    assert sender.acknowledge(2)


def test_on_a_long_path_a_run_waits_no_longer_than_pacing_would() -> None:
    sender = Sender(10 * WINDOW)
    sender.recovery.rtt.smoothed = 0.1
    assert sender.acknowledge(4)
    assert sender.recovery.pacer.worth < 3 * sender.size


def test_an_ack_that_is_due_takes_data_along() -> None:
    sender = Sender(10 * WINDOW)
    sender.server.spaces[Epoch.ONE_RTT].ack_at = sender.pair.now
    sender.server.spaces[Epoch.ONE_RTT].acks.add(0, 1)
    assert sender.acknowledge(5)


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_packets_are_repeated_in_as_many_full_ones(lost: int) -> None:
    sender = Sender(WINDOW + 3000)
    before = sender.server.counters.packets_sent
    first = sender.first
    space = sender.server.spaces[Epoch.ONE_RTT]
    ranges = [(0, first + 30), (first + 30 + lost, space.next_number)]
    sender.recovery.on_ack(ranges, 0.0, sender.pair.now, space)
    sender.window = 10 * WINDOW
    unsent = sender.server.streams.unsent(0)
    repeated = sender.server.streams.bytes_resent
    runs = sender.send()
    packets = sender.server.counters.packets_sent - before
    assert sender.server.streams.bytes_resent - repeated > lost * (sender.size - 60)
    assert packets == lost + -(-unsent // (sender.size - 60))
    assert [-(-len(run.data) // sender.size) for run in runs] == [lost, packets - lost]
