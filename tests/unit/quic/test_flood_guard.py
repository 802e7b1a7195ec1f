"""Overhead on a connection: bounded by rate and share, never over its lifetime."""

from __future__ import annotations

from quicedge.config.limits import FLOOD_BURST, FLOOD_CHECK_EVERY, FLOOD_RATE, FLOOD_SHARE
from quicedge.quic.connection.flood import FloodGuard
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.shares import Standing

START = 100.0


class Peer:
    """Sends to a FloodGuard."""

    def __init__(self) -> None:
        self.counters = ConnectionCounters()
        self.guard = FloodGuard(self.counters, START)
        self.now = START
        self.stream_bytes = 0

    def send(self, size: int, *, useful: int = 0, seconds: float = 0.0) -> Standing:
        self.now += seconds
        self.counters.bytes_received += size
        self.stream_bytes += useful
        return self.guard.assess(self.stream_bytes, self.now)


def test_overhead_beyond_the_burst_exhausts_and_beyond_two_is_hostile() -> None:
    peer = Peer()
    assert peer.send(FLOOD_BURST) is Standing.GOOD
    assert peer.send(1) is Standing.EXHAUSTED
    assert peer.send(FLOOD_BURST) is Standing.HOSTILE


def test_a_peer_within_the_rate_stays_for_ever() -> None:
    peer = Peer()
    standings = {peer.send(int(60 * FLOOD_RATE), seconds=60) for _ in range(10_000)}
    assert standings == {Standing.GOOD}


def test_a_peer_whose_packets_carry_their_share_of_data_stays_for_ever() -> None:
    peer = Peer()
    standings = {
        peer.send(FLOOD_CHECK_EVERY, useful=FLOOD_CHECK_EVERY // FLOOD_SHARE) for _ in range(10_000)
    }
    assert standings == {Standing.GOOD}


def test_data_of_the_past_pays_for_no_more_than_the_burst() -> None:
    peer = Peer()
    peer.send(0, useful=1 << 40)
    assert peer.send(FLOOD_BURST) is Standing.GOOD
    assert peer.send(1) is Standing.EXHAUSTED


def test_dropped_datagrams_do_not_count() -> None:
    peer = Peer()
    peer.counters.bytes_dropped = 3 * FLOOD_BURST
    assert peer.send(3 * FLOOD_BURST) is Standing.GOOD


def test_the_next_check_is_due_after_a_fixed_number_of_bytes() -> None:
    peer = Peer()
    assert peer.guard.check_at == FLOOD_CHECK_EVERY
    peer.send(FLOOD_CHECK_EVERY + 10)
    assert peer.guard.check_at == 2 * FLOOD_CHECK_EVERY + 10
