"""When a busy socket is read by a timer, and when it is not."""

from __future__ import annotations

from quicedge.config.limits import MODERATION_INTERVAL
from quicedge.udp.moderation import Moderation

BUFFER = 7 << 20


class Traffic:
    """Datagrams at fixed rates, read whenever the moderation says so."""

    def __init__(self, receive_buffer: int = BUFFER) -> None:
        self.moderation = Moderation(receive_buffer)
        self.now = 100.0
        self.received = self.sent = 0.0

    def run(self, seconds: float, received: float, sent: float) -> list[float]:
        """Read for some time at these rates per second; returns all pauses."""
        pauses = []
        end = self.now + seconds
        while self.now < end:
            pause = self.moderation.pause(int(self.received), int(self.sent), self.now)
            pauses.append(pause)
            step = pause or 1 / max(received, 1000)
            self.now += step
            self.received += received * step
            self.sent += sent * step
        return pauses


def test_a_transfer_in_either_direction_is_read_once_per_interval() -> None:
    for received, sent in ((20_000, 500), (1500, 15_000)):
        pauses = Traffic().run(0.1, received, sent)
        assert pauses[-50:] == [MODERATION_INTERVAL] * 50


def test_small_requests_are_read_as_they_arrive() -> None:
    """A thousand per second: a request and an acknowledgment in, a response and one more out."""
    assert not any(Traffic().run(2, 2500, 2500))


def test_reads_follow_the_datagrams_again_once_the_transfer_is_over() -> None:
    traffic = Traffic()
    assert all(traffic.run(0.1, 20_000, 500)[-10:])
    pauses = traffic.run(0.1, 500, 500)
    assert 0 < sum(map(bool, pauses)) < 8
    assert not any(pauses[8:])


def test_a_rate_around_the_threshold_does_not_switch_at_every_window() -> None:
    traffic = Traffic()
    traffic.run(0.1, 14_000, 0)
    pauses = []
    for _ in range(10):
        pauses += traffic.run(0.01, 14_000, 0) + traffic.run(0.01, 8000, 0)
    assert all(pauses)


def test_datagrams_that_could_overflow_a_small_buffer_are_read_at_once() -> None:
    traffic = Traffic(receive_buffer=212_992)
    assert any(traffic.run(0.1, 15_000, 0))
    assert not any(traffic.run(0.1, 100_000, 0)[10:])
