"""When a busy socket is read by a timer, and when it is not."""

from __future__ import annotations

from quicedge.config.limits import MODERATION_INTERVAL
from quicedge.udp.moderation import Moderation

BUFFER = 7 << 20
FULL, ACK, REQUEST = 1472, 60, 300
"""Bytes of datagrams."""


class Traffic:
    """Datagrams at a fixed rate, read whenever the moderation says so."""

    def __init__(self, receive_buffer: int = BUFFER) -> None:
        self.moderation = Moderation(receive_buffer)
        self.now = 100.0
        self.received = 0.0

    def run(self, seconds: float, per_second: float, size: int) -> list[float]:
        """Read for some time while datagrams of one size arrive; returns all pauses."""
        pauses = []
        end = self.now + seconds
        while self.now < end:
            pause = self.moderation.pause(int(self.received), self.now)
            pauses.append(pause)
            step = pause or 1 / max(per_second, 1000)
            self.now += step
            self.received += per_second * size * step
        return pauses


def test_an_upload_is_read_once_per_interval() -> None:
    assert Traffic().run(0.1, 20_000, FULL)[-50:] == [MODERATION_INTERVAL] * 50


def test_small_requests_and_acknowledgments_are_read_as_they_arrive() -> None:
    assert not any(Traffic().run(1, 20_000, ACK))
    assert not any(Traffic().run(1, 20_000, REQUEST))


def test_reads_follow_the_datagrams_again_once_the_upload_is_over() -> None:
    traffic = Traffic()
    assert all(traffic.run(0.1, 20_000, FULL)[-10:])
    pauses = traffic.run(0.1, 500, REQUEST)
    assert 0 < sum(map(bool, pauses)) <= 20
    assert not any(pauses[20:])


def test_a_rate_around_the_threshold_does_not_switch_at_every_window() -> None:
    traffic = Traffic()
    traffic.run(0.1, 10_000, FULL)
    pauses = []
    for _ in range(10):
        pauses += traffic.run(0.02, 10_000, FULL) + traffic.run(0.02, 6000, FULL)
    assert all(pauses)


def test_what_could_overflow_a_small_buffer_is_read_at_once() -> None:
    traffic = Traffic(receive_buffer=212_992)
    assert any(traffic.run(0.1, 15_000, FULL))
    assert not any(traffic.run(0.1, 100_000, FULL)[20:])
