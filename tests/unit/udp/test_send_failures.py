"""Failed sends: nothing raises, temporary failures are queued, the rest is counted."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import UDP_SEND_QUEUE
from quicedge.udp.socket import FourTuple, UdpSocket

REMOTE = ("192.0.2.1", 4433)


class FakeSocket:
    """A socket whose sends fail by the errors given, in order, and then succeed."""

    family = socket.AF_INET

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.sent: list[bytes] = []

    def setsockopt(self, *arguments: Any) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def sendmsg(self, buffers: tuple[bytes, ...], messages: Any, flags: int, to: Any) -> None:
        self.sendto(b"".join(buffers), to)

    def sendto(self, data: bytes, to: Any) -> None:
        if self.errors and (number := self.errors.pop(0)):
            raise OSError(number, os.strerror(number))
        self.sent.append(data)


def make(*errors: int) -> tuple[UdpSocket, FakeSocket, FourTuple]:
    fake = FakeSocket(*errors)
    sock = UdpSocket(fake)  # type: ignore[arg-type]
    return sock, fake, FourTuple(REMOTE, b"", sock)


@pytest.mark.parametrize(
    ("number", "counter"),
    [
        (errno.EPERM, "send_dropped_not_permitted"),
        (errno.EMSGSIZE, "send_dropped_too_large"),
        (errno.ENETUNREACH, "send_dropped_unreachable"),
        (errno.ECONNREFUSED, "send_dropped_refused"),
        (errno.EADDRNOTAVAIL, "send_dropped_address_gone"),
        (errno.EBADMSG, "send_dropped_error"),
    ],
)
def test_what_is_refused_is_lost_and_counted(number: int, counter: str) -> None:
    sock, fake, path = make(number)
    sock.send([b"first"], path)
    sock.send([b"second"], path)
    assert sock.counters[counter] == 1
    assert fake.sent == [b"second"]


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EAGAIN, errno.EINTR])
def test_what_finds_no_room_waits_in_order(number: int) -> None:
    sock, fake, path = make(number)
    blocked: list[bool] = []
    sock.on_blocked = lambda: blocked.append(True)
    sock.send([b"first"], path)
    sock.send([b"second"], path)
    assert fake.sent == []
    assert blocked == [True]
    assert sock.flush()
    assert fake.sent == [b"first", b"second"]


def test_a_device_that_cannot_segment_is_sent_single_datagrams() -> None:
    sock, fake, path = make(errno.EIO)
    assert sock.gso
    sock.send_segments(b"aabbc", 2, path)
    assert fake.sent == [b"aa", b"bb", b"c"]
    assert not sock.gso


def test_what_waits_is_bounded() -> None:
    sock, fake, path = make(*[errno.ENOBUFS] * 10)
    datagram = bytes(60_000)
    for _ in range(UDP_SEND_QUEUE // len(datagram) + 5):
        sock.send([datagram], path)
    assert sock.counters["send_dropped_queue"] == 5
    fake.errors.clear()
    assert sock.flush()
    assert len(fake.sent) == UDP_SEND_QUEUE // len(datagram)


@given(st.lists(st.sampled_from([0, errno.ENOBUFS, errno.EPERM, errno.EMSGSIZE, errno.EIO])))
def test_every_datagram_is_sent_or_counted(errors: list[int]) -> None:
    sock, fake, path = make(*errors)
    for number in range(20):
        sock.send([b"%02d" % number] * 3, path)
    fake.errors.clear()
    assert sock.flush()
    lost = sum(count for name, count in sock.counters.items() if "dropped" in name)
    assert sum(len(data) // 2 for data in fake.sent) + lost == 60
    assert sock.counters["datagrams_sent"] + lost == 60
    order = b"".join(fake.sent)
    numbers = [order[at : at + 2] for at in range(0, len(order), 2)]
    assert numbers == sorted(numbers)
