"""A UDP socket of the worker: watched while little arrives, read by a timer while it is busy."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from quicedge.config.limits import MODERATION_INTERVAL
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.socket_reader import SocketReader

DATAGRAM = bytes(1400)


class Timer:
    def __init__(self, due: float, callback: Callable[..., None]) -> None:
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """What a reader asks of the event loop, on a clock of our own."""

    def __init__(self) -> None:
        self.now = 50.0
        self.readers: dict[int, Callable[[], None]] = {}
        self.timers: list[Timer] = []
        self.soon: deque[Callable[[], None]] = deque()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        """One iteration, half a millisecond after the last."""
        self.now += 0.0005
        due = [timer for timer in self.timers if timer.due <= self.now]
        for timer in due:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()
        while self.soon:
            self.soon.popleft()()
        for callback in list(self.readers.values()):
            callback()


class World:
    def __init__(self) -> None:
        self.loop = Loop()
        self.socket = UdpSocket(open_socket(socket.AF_INET, "127.0.0.1", 0))
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.connect(self.socket.address)
        self.received: list[bytes] = []
        self.reads = 0
        loop: Any = self.loop
        self.reader = SocketReader(
            self.socket, loop, lambda: self.loop.now, self.take, self.count
        )  # fmt: skip

    def take(self, datagrams: list[bytes], path: Any, ecn: int) -> None:
        self.received += datagrams

    def count(self) -> None:
        self.reads += 1

    def run(self, turns: int, datagrams: int) -> None:
        """Turns of the loop, before each of which datagrams arrive."""
        for _ in range(turns):
            for _ in range(datagrams):
                self.peer.send(DATAGRAM)
            self.loop.turn()

    @property
    def is_watched(self) -> bool:
        return self.socket.fileno() in self.loop.readers


@pytest.fixture
def world() -> Any:
    world = World()
    yield world
    world.reader.close()
    world.peer.close()
    world.socket.close()


def test_a_busy_socket_is_read_by_a_timer_and_loses_nothing(world: World) -> None:
    world.run(40, 10)
    assert not world.is_watched
    before = world.reads
    world.run(40, 10)
    assert world.reads - before == pytest.approx(40 * 0.0005 / MODERATION_INTERVAL, abs=2)
    assert not world.is_watched
    world.run(4, 0)
    assert len(world.received) == 800


def test_no_timer_reads_in_vain_while_nothing_arrives(world: World) -> None:
    world.run(40, 10)
    world.run(4, 0)
    assert world.is_watched
    assert not world.loop.timers
    before = world.reads
    world.run(4, 0)
    assert world.reads == before
    world.run(1, 10)
    assert not world.is_watched, "it pauses again after a read that brought something"


def test_it_is_watched_again_once_it_is_not_busy(world: World) -> None:
    world.run(40, 10)
    assert not world.is_watched
    world.run(40, 0)
    assert world.is_watched
    assert not world.loop.timers
    world.run(1, 1)
    assert len(world.received) == 401


def test_a_socket_that_is_not_busy_stays_watched(world: World) -> None:
    for _ in range(100):
        world.run(1, 2)
        assert world.is_watched
    assert len(world.received) == 200


def test_a_closed_reader_reads_no_more(world: World) -> None:
    world.run(40, 10)
    assert world.loop.timers
    world.reader.close()
    before = world.reads
    world.run(10, 1)
    assert not world.is_watched
    assert world.reads == before


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_a_slow_turn_leaves_is_delivered_in_the_next_unless_it_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    def take(datagrams: list[bytes], path: Any, ecn: int) -> None:
        world.received += datagrams
        world.loop.now += 1.0

    monkeypatch.setattr(world.reader, "_handler", take)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        world.peer.send(DATAGRAM)
        other.sendto(DATAGRAM, world.socket.address)
        for callback in list(world.loop.readers.values()):
            callback()
    assert len(world.received) == 1
    if is_closed:
        world.reader.close()
    world.loop.turn()
    assert len(world.received) == (1 if is_closed else 2)
    assert world.is_watched is not is_closed
    assert not world.loop.timers
