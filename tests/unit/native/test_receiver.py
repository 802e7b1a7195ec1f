"""The compiled receiver and its twin in Python, on real sockets that get the same datagrams."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from quicedge.config import limits
from quicedge.udp import kernel
from quicedge.udp.receiver import Run
from quicedge.udp.socket import open_socket
from tests.support.twins import both

PURE, COMPILED = both("DatagramReceiver")
V4, V6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
LARGE = 1 << 30

Send = Callable[[socket.socket, list[tuple[int, int, bytes]], bytes], None]


class Ends:
    """A receiver of each kind on its own socket, and one sender."""

    def __init__(self, family: tuple[socket.AddressFamily, str], stack: ExitStack) -> None:
        self.family, host = family
        self.sockets = [stack.enter_context(open_socket(self.family, host, 0)) for _ in range(2)]
        self.receivers = [PURE(self.sockets[0]), COMPILED(self.sockets[1])]
        self.senders = [stack.enter_context(self._sender(host)) for _ in range(3)]

    def _sender(self, host: str) -> socket.socket:
        sender = socket.socket(self.family, socket.SOCK_DGRAM)
        sender.bind((host, 0))
        return sender

    def send(self, data: bytes, *, sender: int = 0, ecn: int = 0, segment: int = 0) -> None:
        """The same to both; loopback delivers before the call returns."""
        control = [kernel.ecn_message(self.family, ecn)] if ecn else []
        if segment:
            control.append(kernel.segment_message(segment))
        for receiver in self.sockets:
            self.senders[sender].sendmsg([data], control, 0, receiver.getsockname())

    def receive(self, max_reads: int = 64, max_bytes: int = LARGE) -> tuple[Any, ...]:
        """What both say, once it is known to be the same."""
        pure, compiled = (one.receive(max_reads, max_bytes) for one in self.receivers)
        assert pure == compiled
        assert all(type(data) is bytes for run in compiled[0] for data in run[3])
        return pure


@contextmanager
def ends(family: tuple[socket.AddressFamily, str]) -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(family, stack)


@FAMILIES
def test_datagrams_of_several_peers_with_marks_are_received_alike(family: Any) -> None:
    with ends(family) as pair:
        for number in range(30):
            pair.send(b"%d" % number * (number + 1), sender=number // 4 % 3, ecn=number // 2 % 4)
        pair.send(b"")
        runs, reads, nbytes, *rest = pair.receive()
        assert reads == 31
        assert nbytes == sum(len(b"%d" % n) * (n + 1) for n in range(30))
        assert rest == [0, 0, 0]
        assert [data for run in runs for data in run[3]] == [
            *(b"%d" % n * (n + 1) for n in range(30)), b"",
        ]  # fmt: skip
        host = family[1]
        remotes = [sender.getsockname() for sender in pair.senders]
        assert [(run[0], run[2]) for run in runs[:4]] == [
            (remotes[0], 0), (remotes[0], 1), (remotes[1], 2), (remotes[1], 3),
        ]  # fmt: skip
        packed = socket.inet_pton(pair.family, host)
        assert {run[1] for run in runs} == {
            b"\0" * 4 + packed + b"\0" * 4 if pair.family == socket.AF_INET else packed + b"\0" * 4
        }
        assert pair.receive()[:2] == ([], 0)


@FAMILIES
def test_what_gro_coalesced_is_split_alike(family: Any) -> None:
    with ends(family) as pair:
        pair.send(bytes(range(250)) * 22, segment=1200, ecn=2)
        pair.send(b"single")
        pair.send(b"x" * 3600, segment=1200)
        runs, _, nbytes, truncated, coalesced, errors = pair.receive()
        sizes = [len(data) for run in runs for data in run[3]]
        assert sizes == [1200, 1200, 1200, 1200, 700, 6, 1200, 1200, 1200]
        assert (nbytes, truncated, errors) == (5500 + 6 + 3600, 0, 0)
        if not coalesced:
            pytest.skip("this kernel does not coalesce on loopback")
        assert coalesced == 2


@FAMILIES
def test_the_largest_datagrams_and_batches_are_received_whole(family: Any) -> None:
    with ends(family) as pair:
        pair.send(b"a" * limits.UDP_MAX_PAYLOAD)
        pair.send(b"b" * (1472 * 44), segment=1472)
        runs, _, nbytes, truncated, _, _ = pair.receive()
        assert truncated == 0
        assert nbytes == limits.UDP_MAX_PAYLOAD + 1472 * 44
        assert b"".join(data for run in runs for data in run[3]) == (
            b"a" * limits.UDP_MAX_PAYLOAD + b"b" * (1472 * 44)
        )


def test_reads_and_bytes_are_bounded() -> None:
    with ends(V4) as pair:
        for number in range(50):
            pair.send(b"%02d" % number * 500)
        first = pair.receive(max_reads=20)
        assert first[1] == 20
        second = pair.receive(max_reads=5)
        assert second[1] == 5
        rest = pair.receive(max_reads=64)
        assert rest[1] == 25
        together: list[Run] = first[0] + second[0] + rest[0]
        assert [data[:2] for run in together for data in run[3]] == [b"%02d" % n for n in range(50)]
        for _ in range(60):
            pair.send(b"z" * 1000)
        for receiver in pair.receivers:
            # A call of the kernel may read a batch more than asked for.
            assert 10 <= receiver.receive(64, 9999)[1] <= 32


def test_an_icmp_error_is_counted_and_reading_goes_on() -> None:
    with ends(V4) as pair:
        for receiver in pair.sockets:
            # A connected socket gets the error of a closed port.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
                gone.bind(("127.0.0.1", 0))
                address = gone.getsockname()
            receiver.connect(address)
            receiver.send(b"to nobody")
        assert pair.receive() == ([], 0, 0, 0, 0, 1)
        assert pair.receive() == ([], 0, 0, 0, 0, 0)


def test_a_closed_socket_yields_errors_and_no_other_files_data() -> None:
    with ends(V4) as pair:
        numbers = [receiver.fileno() for receiver in pair.sockets]
        for receiver in pair.sockets:
            receiver.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            assert other.fileno() in numbers
            other.bind(("127.0.0.1", 0))
            pair.senders[0].sendto(b"for another", other.getsockname())
            assert pair.receive(max_reads=3) == ([], 0, 0, 0, 0, 3)
            assert other.recv(100) == b"for another"
