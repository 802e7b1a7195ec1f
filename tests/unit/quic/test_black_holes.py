"""Paths that swallow large or ECN-marked datagrams in mid-connection, and paths that only lose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aioquic.quic.events import StreamDataReceived

from quicedge.config.limits import BASE_DATAGRAM_SIZE
from quicedge.quic.ecn import ECT_0, NOT_ECT, EcnState
from quicedge.quic.selectiveloss import SelectiveLoss
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair, Peer, datagrams

CEILING = 1472
MEGABYTE = 1_000_000


class Transfer:
    """Data from one peer to the other on one stream, refilled by hand."""

    def __init__(self, pair: Pair, *, upward: bool) -> None:
        self.pair = pair
        client, server = pair.client, pair.server
        self.sender, self.receiver = (client, server) if upward else (server, client)
        pair.run(
            lambda: client.connection.handshake_confirmed and server.connection.handshake_confirmed
        )
        self.stream_id = client.connection.get_next_available_stream_id()
        client.connection.send_stream_data(self.stream_id, b"?")
        pair.run(lambda: server.connection.streams.peer_bidi.opened == 1)
        self.received = 0
        self.wanted = 0
        self.receiver.on_event = self._count

    def _count(self, event: object) -> None:
        if isinstance(event, StreamDataReceived):
            self.received += len(event.data)
            self.receiver.connection.consume(event.stream_id, len(event.data))

    def send(self, nbytes: int) -> None:
        self.sender.connection.send_stream_data(self.stream_id, bytes(nbytes))
        self.wanted += nbytes

    def finish(self, limit: float) -> float:
        """Run until all has arrived and is acknowledged; returns the virtual seconds it took."""
        start = self.pair.now
        recovery = self.sender.connection.recovery
        self.pair.run(
            lambda: self.received == self.wanted and not recovery.bytes_in_flight, limit=limit
        )
        return self.pair.now - start


def transfer(*, upward: bool, loss: float = 0.0, seed: int = 1) -> tuple[Transfer, Link]:
    """A transfer on a path found to carry CEILING bytes, and the link that its data takes."""
    up, down = Link(), Link()
    pair = make_pair(up, down, seed=seed, mtu_ceiling=CEILING, own_client=True)
    flow = Transfer(pair, upward=upward)
    flow.send(MEGABYTE)
    flow.finish(60)
    assert flow.sender.connection.max_datagram_size == CEILING
    # Only now, as it may take the few probes of the size along.
    up.loss = down.loss = loss
    return flow, up if upward else down


def start_mid_transfer(flow: Transfer) -> None:
    """Leave the transfer with data in flight and more to come."""
    flow.send(MEGABYTE)
    half = flow.received + MEGABYTE // 2
    flow.pair.run(lambda: flow.received >= half)


def sizes_and_marks(peer: Peer) -> list[tuple[int, int]]:
    """Will hold the largest datagram and the mark of each run that the peer sends from now on."""
    seen: list[tuple[int, int]] = []
    transmit = peer.connection.poll_transmit

    def watch(now: float) -> object:
        runs = transmit(now)
        seen.extend((min(run.segment, len(run.data)), run.ecn) for run in runs)
        return runs

    peer.connection.poll_transmit = watch
    return seen


# --- path MTU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("upward", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("mtu", [1300, 1200])
def test_a_path_that_shrinks_in_mid_transfer_is_survived(
    upward: bool, loss: float, mtu: int
) -> None:
    flow, link = transfer(upward=upward, loss=loss)
    sender = flow.sender.connection
    assert sender.max_datagram_size == CEILING
    start_mid_transfer(flow)
    link.mtu = mtu
    before = flow.received
    start = flow.pair.now
    flow.pair.run(lambda: flow.received > before + 300_000, limit=10)
    assert flow.pair.now - start < 3
    assert sender.max_datagram_size == BASE_DATAGRAM_SIZE
    flow.finish(30)
    # It was the size, not the mark.
    assert sender.paths.ecn_state is EcnState.CAPABLE


@pytest.mark.parametrize("upward", [False, True], ids=["down", "up"])
def test_messages_of_one_full_datagram_find_the_black_hole_too(upward: bool) -> None:
    flow, link = transfer(upward=upward)
    link.mtu = 1300
    for _ in range(8):
        flow.send(1400)
        assert flow.finish(5) < 2
    assert flow.sender.connection.max_datagram_size == BASE_DATAGRAM_SIZE


def test_small_packets_that_arrive_do_not_hide_the_black_hole() -> None:
    flow, link = transfer(upward=False)
    server = flow.sender.connection
    start_mid_transfer(flow)
    link.mtu = 1300
    # PINGs are acknowledged all the while and end every run of probe timeouts.
    end = flow.pair.now + 3
    while flow.pair.now < end:
        server.send_ping(1)
        flow.pair.transmit()
        flow.pair.wait(0.03)
    assert server.max_datagram_size == BASE_DATAGRAM_SIZE
    flow.finish(30)


def test_a_larger_size_is_found_again_when_the_path_has_recovered() -> None:
    flow, link = transfer(upward=False)
    start_mid_transfer(flow)
    link.mtu = 1300
    flow.finish(30)
    link.mtu = None
    # The size is tried again after a minute, which is also when an idle connection ends.
    for _ in range(2):
        flow.receiver.connection.send_ping(1)
        flow.pair.transmit()
        flow.pair.wait(31)
    flow.send(MEGABYTE)
    flow.finish(30)
    assert flow.sender.connection.max_datagram_size == CEILING


@pytest.mark.parametrize("seed", range(4))
def test_ordinary_loss_leaves_size_and_marks_alone(seed: int) -> None:
    flow, _ = transfer(upward=False, loss=0.05, seed=seed)
    for _ in range(3):
        flow.send(MEGABYTE)
        flow.finish(120)
    server = flow.sender.connection
    assert server.recovery.packets_lost > 50
    assert server.max_datagram_size == CEILING
    assert server.paths.ecn_state is EcnState.CAPABLE


def test_an_outage_leaves_size_and_marks_alone() -> None:
    flow, link = transfer(upward=False)
    server = flow.sender.connection
    for _ in range(4):
        start_mid_transfer(flow)
        link.loss = 1.0
        end = flow.pair.now + 3
        while flow.pair.step(end):
            pass
        link.loss = 0.0
        flow.finish(60)
    assert server.recovery.pto_total > 4
    assert server.max_datagram_size == CEILING
    assert server.paths.ecn_state is EcnState.CAPABLE


def test_after_a_migration_no_datagram_is_larger_than_every_path_carries() -> None:
    flow, link = transfer(upward=False)
    start_mid_transfer(flow)
    link.mtu = 1300
    seen = sizes_and_marks(flow.sender)
    flow.pair.client.address = ("192.0.2.77", 61000)
    server = flow.sender.connection
    flow.receiver.connection.send_ping(1)
    flow.pair.run(lambda: server.counters.migrations == 1)
    moved = len(seen)
    flow.pair.run(lambda: server.paths.active.is_validated, limit=2)
    # At most the one that asks for more.
    assert sum(size > BASE_DATAGRAM_SIZE for size, _ in seen[moved:]) <= 1
    assert server.max_datagram_size == BASE_DATAGRAM_SIZE
    flow.finish(30)


def test_a_path_that_is_only_probed_gets_datagrams_that_every_path_carries() -> None:
    flow, _ = transfer(upward=False)
    client, server = flow.receiver.connection, flow.sender.connection
    # A probing packet from another address: the client looks, and does not move (RFC 9000 9.1).
    client.paths.active.challenge_due = True
    (data,) = datagrams(client, flow.pair.now)
    seen = sizes_and_marks(flow.sender)
    server.receive_datagram(data, ("192.0.2.77", 61000), flow.pair.now)
    server.poll_transmit(flow.pair.now)
    assert server.counters.migrations == 0
    assert seen
    assert max(size for size, _ in seen) <= BASE_DATAGRAM_SIZE


# --- ECN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upward", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_a_path_that_swallows_marks_in_mid_transfer_is_survived(upward: bool, loss: float) -> None:
    flow, link = transfer(upward=upward, loss=loss)
    sender = flow.sender.connection
    assert sender.paths.ecn_state is EcnState.CAPABLE
    start_mid_transfer(flow)
    link.swallows_marked = True
    before = flow.received
    start = flow.pair.now
    flow.pair.run(lambda: flow.received > before + 300_000, limit=10)
    assert flow.pair.now - start < 3
    assert sender.paths.ecn_state is EcnState.FAILED
    seen = sizes_and_marks(flow.sender)
    flow.finish(30)
    assert {mark for _, mark in seen} == {NOT_ECT}
    # It was the mark, not the size.
    assert sender.max_datagram_size == CEILING


def test_a_new_path_is_marked_on_again() -> None:
    flow, link = transfer(upward=False)
    start_mid_transfer(flow)
    link.swallows_marked = True
    flow.finish(30)
    assert flow.sender.connection.paths.ecn_state is EcnState.FAILED
    link.swallows_marked = False
    flow.pair.client.address = ("192.0.2.77", 61000)
    flow.receiver.connection.send_ping(1)
    flow.send(MEGABYTE)
    flow.finish(30)
    assert flow.sender.connection.paths.ecn_state is EcnState.CAPABLE


def test_a_path_that_swallows_large_and_marked_datagrams_is_survived() -> None:
    flow, link = transfer(upward=False)
    start_mid_transfer(flow)
    link.mtu, link.swallows_marked = 1300, True
    flow.finish(30)
    assert flow.sender.connection.paths.active.ecn.codepoint(0) == NOT_ECT
    assert flow.sender.connection.max_datagram_size == BASE_DATAGRAM_SIZE


# --- the evidence ---------------------------------------------------------------------------------


def on_acked(loss: SelectiveLoss) -> None:
    loss.on_acked()


def on_reset(loss: SelectiveLoss) -> None:
    loss.reset()


@pytest.mark.parametrize("spare", [on_acked, on_reset])
def test_flights_in_a_row_are_the_evidence(spare: Callable[[SelectiveLoss], None]) -> None:
    loss = SelectiveLoss(3)
    for flight in range(2):
        loss.on_lost(flight + 0.0, flight + 0.5)
        loss.on_lost(flight + 0.1, flight + 0.6)  # of the same flight
    assert not loss.is_black_hole
    spare(loss)
    for flight in range(2, 4):
        loss.on_lost(flight + 0.0, flight + 0.5)
    assert not loss.is_black_hole
    loss.on_lost(4.0, 4.5)
    assert loss.is_black_hole


def test_marks_are_sent_in_the_beginning() -> None:
    flow, _ = transfer(upward=False)
    assert flow.sender.connection.paths.active.ecn.codepoint(0) == ECT_0
