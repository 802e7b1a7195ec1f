"""Runs of a sender that its window limits: long ones, sent when ACKs have made room for them."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived

from quicedge.config.limits import HOLD_IN_FLIGHT, MAX_ACK_DELAY, MAX_BATCH_PACKETS
from quicedge.quic.connection import Connection, packer
from quicedge.quic.connection.packer import Transmit
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.frames import Epoch
from quicedge.quic.rtt import RttEstimator
from tests.support.quicpair import SERVER_ADDRESS, client_configuration, make_pair
from tests.support.simnet import Pair, transmit
from tests.support.world import CLIENT, NOW, World

WINDOW = 120_000


class Sender:
    """A server that has filled its window with a response, on a path of half a millisecond."""

    def __init__(self, nbytes: int, window: int = WINDOW) -> None:
        self.pair: Pair = make_pair(own_client=True, mtu_ceiling=1200)
        server: Connection = self.pair.server.connection
        self.server = server
        # A skipped number would be taken for a packet.
        server.skipper.at = 1 << 60
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
    assert sender.recovery.bytes_in_flight > 0.85 * WINDOW
    for _ in range(3):
        assert not sender.acknowledge(10)
    assert sender.recovery.pacer.worth > 30 * sender.size
    runs = sender.acknowledge(20)
    assert len(runs[0].data) > 40 * sender.size
    assert sum(len(run.data) for run in runs) > 49 * sender.size


@pytest.mark.parametrize(("left", "waits"), [(8, True), (16, False)])
def test_little_room_that_is_left_after_a_run_waits_too(left: int, waits: bool) -> None:
    sender = Sender(10 * WINDOW, window=(2 * MAX_BATCH_PACKETS + left) * 1200)
    packets = [len(run.data) // 1200 for run in sender.sent]
    assert packets[:2] == [MAX_BATCH_PACKETS] * 2
    assert (len(packets) == 2) is waits


def test_what_is_left_of_a_response_does_not_wait() -> None:
    sender = Sender(WINDOW + 3000)
    (run,) = sender.acknowledge(10)
    assert not sender.server.streams.unsent(0)
    assert len(run.data) < 20 * sender.size


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
    assert [-(-len(run.data) // sender.size) for run in runs] == [packets]


# --- what waits for room is left alone ------------------------------------------------------------


def stays_held(sender: Sender, until: float = 1.0) -> bool:
    """Whether nothing need be done within that many seconds."""
    return sender.server.stays_held(sender.pair.now + until)


def acknowledge_only(sender: Sender, packets: int) -> None:
    """The next packets of the response are acknowledged, and nothing is sent yet."""
    sender.first += packets
    space = sender.server.spaces[Epoch.ONE_RTT]
    sender.recovery.on_ack([(0, sender.first)], 0.0, sender.pair.now, space)
    sender.recovery.controller.congestion_window = sender.window
    sender.recovery._set_pace()


def test_a_held_connection_is_left_alone_until_there_is_room() -> None:
    sender = Sender(10 * WINDOW)
    for _ in range(3):
        acknowledge_only(sender, 10)
        assert stays_held(sender)
        assert not sender.send()
    acknowledge_only(sender, 25)
    assert not stays_held(sender)
    assert sender.send()


def test_a_held_connection_is_not_left_alone_when_anything_else_is_to_do() -> None:
    sender = Sender(10 * WINDOW)
    server, space = sender.server, sender.server.spaces[Epoch.ONE_RTT]
    acknowledge_only(sender, 5)
    assert stays_held(sender)
    # An ACK or a loss that is due sooner than what its timer is set for.
    for name in ("ack_at", "loss_time"):
        setattr(space, name, sender.pair.now + 0.5)
        assert not stays_held(sender)
        assert stays_held(sender, 0.4)
        setattr(space, name, None)
    space.probes = 1
    assert not stays_held(sender)
    space.probes = 0
    server.send_ping(1)
    assert not stays_held(sender)
    sender.send()
    assert stays_held(sender)
    server.counters.bytes_received = server.flood.check_at
    assert not stays_held(sender)
    server.counters.bytes_received = 0
    server.events.append(HandshakeCompleted(None, False, False))
    assert not stays_held(sender)
    server.events.pop()
    assert stays_held(sender)
    server.close()
    assert not stays_held(sender)


def test_a_connection_whose_data_is_not_held_is_not_left_alone() -> None:
    sender = Sender(10 * WINDOW)
    sender.window = 20 * WINDOW
    assert sender.send()
    sender.recovery.pacer._level = 0.0
    sender.send()
    assert not stays_held(sender), "pacing holds it back, or nothing"
    short = Sender(3000)
    assert not stays_held(short)


def test_with_little_left_in_flight_a_held_connection_is_not_left_alone() -> None:
    sender = Sender(10 * WINDOW)
    acknowledge_only(sender, 5)
    assert stays_held(sender)
    sender.window = WINDOW // 8
    acknowledge_only(sender, 90)
    assert sender.recovery.bytes_in_flight < HOLD_IN_FLIGHT
    assert not stays_held(sender)


class Download:
    """A client of ours that acknowledges every tenth packet downloads from an endpoint, which gets
    each of its datagrams alone, with a window of constant size."""

    def __init__(self, body: bytes) -> None:
        self.now = NOW
        self.world = World()
        self.body = body
        self.received = b""
        self.client = Connection(
            configuration=client_configuration(max_data=1 << 24, max_stream_data=1 << 24),
            now=self.now,
        )
        self.client.connect(SERVER_ADDRESS, self.now)
        self.from_client: list[bytes] = []
        self.handed = self.flushed = 0
        for _ in range(40):
            self.step()
        self.client.send_stream_data(0, b"?")
        for _ in range(4):
            self.step()
        (self.server,) = self.world.endpoint.connections
        self.server.send_stream_data(0, body, end_stream=True)
        self.world.endpoint.wake(self.server)

    def _from_client(self) -> None:
        self.from_client += [data for data, *_ in transmit(self.client, self.now)]

    def step(self) -> None:
        """A quarter of a millisecond."""
        endpoint = self.world.endpoint
        self._from_client()
        for data in self.from_client:
            self.handed += 1
            endpoint.receive(data, CLIENT, self.now)
            self.flushed += endpoint.has_work
            if endpoint.has_work:
                endpoint.flush(self.now)
        self.from_client.clear()
        endpoint.handle_timers(self.now)
        endpoint.flush(self.now)
        self.now += 0.00025
        self._to_client(self.world.network.take())
        while (event := self.client.poll_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self.received += event.data
        deadline = self.client.poll_timeout()
        if deadline is not None and deadline <= self.now:
            self.client.handle_timeout(self.now)

    def _to_client(self, sent: list[bytes]) -> None:
        for at in range(0, len(sent), 10):
            self.client.receive_run(sent[at : at + 10], 0, SERVER_ADDRESS, self.now)
            if len(sent) > 10:
                self.client.spaces[Epoch.ONE_RTT].ack_at = self.now
                self._from_client()

    def finish(self, window: int) -> int:
        """Download all of it with a constant window; returns the steps that it took."""
        recovery = self.server.recovery
        steps = 0
        while len(self.received) < len(self.body) and steps < 10_000:
            recovery.controller.congestion_window = recovery.controller.ssthresh = window
            recovery._set_pace()
            self.step()
            steps += 1
        assert self.received == self.body
        return steps


def test_a_download_arrives_whole_though_many_acks_are_answered_with_nothing() -> None:
    body = bytes(range(256)) * 12_000
    download = Download(body)
    recovery = download.server.recovery
    assert download.finish(WINDOW) <= 2000
    assert download.handed > 200
    assert download.flushed < 0.8 * download.handed
    # Nor is it forgotten: what is acknowledged last is settled.
    for _ in range(400):
        download.step()
    assert not recovery.bytes_in_flight
    assert download.server.streams.unacknowledged(0) == 0


def test_acks_that_make_too_little_room_are_applied_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = bytes(range(256)) * 12_000
    download = Download(body)
    recovery = download.server.recovery
    applied = 0
    on_ack = Recovery.on_ack

    def count(*args: Any) -> None:
        nonlocal applied
        applied += 1
        on_ack(*args)

    monkeypatch.setattr(Recovery, "on_ack", count)
    samples = []
    update = RttEstimator.update

    def sample(rtt: RttEstimator, latest: float, ack_delay: float, now: float) -> None:
        samples.append(latest)
        update(rtt, latest, ack_delay, now)

    monkeypatch.setattr(RttEstimator, "update", sample)
    download.handed = 0
    download.finish(WINDOW)
    assert applied < 0.8 * download.handed
    # The client answers in the same step, or in one of the next: not when data is sent again.
    assert max(samples) < 0.002
    assert recovery.packets_lost == 0
    assert recovery.delivery_rate is not None


def test_an_ack_that_waits_is_applied_before_the_connection_ends() -> None:
    download = Download(bytes(range(256)) * 12_000)
    server, recovery = download.server, download.server.recovery
    for _ in range(400):
        recovery.controller.congestion_window = recovery.controller.ssthresh = WINDOW
        recovery._set_pace()
        download.step()
        if recovery.unsettled:
            break
    waiting, delivered = recovery.unsettled, recovery.delivered
    assert waiting
    download.client.close()
    download.step()
    assert not server.is_alive
    assert recovery.unsettled == 0
    assert recovery.delivered > delivered


class SparseAcks(Download):
    """Its client acknowledges every so many packets of the response, or after the delay that it
    may take."""

    every: int | None = None
    unacknowledged = 0
    due = 0.0

    def _to_client(self, sent: list[bytes]) -> None:
        if self.every is None:
            super()._to_client(sent)
            return
        space = self.client.spaces[Epoch.ONE_RTT]
        for data in sent:
            if space.ack_at is None:
                self.unacknowledged, self.due = 0, self.now + MAX_ACK_DELAY / 1000
            self.client.receive_run([data], 0, SERVER_ADDRESS, self.now)
            self.unacknowledged += 1
            space.ack_at = self.due
            if self.unacknowledged == self.every:
                space.ack_at = self.now
                self._from_client()


@pytest.mark.parametrize("window", [40_000, WINDOW])
@pytest.mark.parametrize("every", [2, 10, 25, 44, 64])
def test_no_run_waits_for_the_delayed_ack_of_a_client_that_acknowledges_rarely(
    every: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    for in_flight in (HOLD_IN_FLIGHT, 1 << 60):
        monkeypatch.setattr(packer, "HOLD_IN_FLIGHT", in_flight)
        download = SparseAcks(bytes(range(256)) * 4000)
        download.every = every
        steps.append(download.finish(window))
    # One such delay takes a hundred steps; a run that waits for room, part of a round trip.
    assert steps[0] <= 2 * steps[1]
