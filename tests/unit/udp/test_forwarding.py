"""Where workers of two generations send datagrams that are not theirs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from quicedge.config.limits import FORWARD_LOOK_BACK, FORWARD_RETURNED
from quicedge.udp.connection_id_codec import ConnectionIdCodec, slot_number
from quicedge.udp.forwarding import Forwarder, announce
from quicedge.udp.socket import FourTuple, UdpSocket, open_socket

OLD, NEW = slot_number(0, 0), slot_number(1, 0)
CODEC = ConnectionIdCodec()


class Worker:
    """One worker: what it knows, and what reached it."""

    def __init__(self, slot: int, inbox: socket.socket, outboxes: dict[int, socket.socket],
                 sock: UdpSocket, clock: list[float]) -> None:  # fmt: skip
        duplicates = {to: outbox.dup() for to, outbox in outboxes.items()}
        self.forwarder = Forwarder(slot, inbox, duplicates, [sock], clock=lambda: clock[0])
        self.path = FourTuple(("127.0.0.1", 9), b"", sock)
        self.known: set[bytes] = set()
        self.got: list[bytes] = []
        self.accepted: list[bytes] = []

    def receive(self, data: bytes, path: FourTuple | None = None, ecn: int = 0) -> None:
        """As the endpoint does."""
        if data in self.known:
            self.got.append(data)
        elif not self.forwarder.forward(data, path or self.path, ecn):
            self.accepted.append(data)

    def turn(self) -> None:
        self.forwarder.receive(self.receive)


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def banks(clock: list[float]) -> Iterator[tuple[Worker, Worker]]:
    """A worker of the old generation, and one of the new one that has just become active."""
    with contextlib.ExitStack() as stack:
        pairs = {}
        for slot in (OLD, NEW):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in pair:
                end.setblocking(False)
            stack.callback(pair[1].close)
            pairs[slot] = pair
        sock = UdpSocket(open_socket(socket.AF_INET, "127.0.0.1", 0))
        stack.callback(sock.close)
        outboxes = {slot: pair[1] for slot, pair in pairs.items()}
        old = Worker(OLD, pairs[OLD][0], {OLD: outboxes[OLD]}, sock, clock)
        new = Worker(NEW, pairs[NEW][0], outboxes, sock, clock)
        for worker in (old, new):
            stack.callback(worker.forwarder.close)
        announce(outboxes[OLD], 1, [outboxes[NEW].fileno()], active=1)
        old.turn()
        yield old, new


def short(slot: int) -> bytes:
    return b"\x40" + CODEC.make(slot, os.urandom(8)) + bytes(40)


def initial(slot: int) -> bytes:
    return b"\xc0\0\0\0\1\x08" + CODEC.make(slot, os.urandom(8)) + bytes(1200)


def test_packets_of_a_connection_go_to_its_owner_both_ways(banks: tuple[Worker, Worker]) -> None:
    old, new = banks
    for here, there, slot in ((new, old, OLD), (old, new, NEW)):
        packet = short(slot)
        there.known.add(packet)
        here.receive(packet)
        there.turn()
        assert there.got == [packet]


def test_a_handshake_that_began_in_the_old_bank_goes_on_there(banks: tuple[Worker, Worker]) -> None:
    old, new = banks
    packet = initial(OLD)
    old.known.add(packet)
    new.receive(packet)
    old.turn()
    assert old.got == [packet]
    assert new.accepted == []


def test_a_new_client_whose_id_looks_like_one_of_the_old_bank_is_accepted_by_the_new_one(
    banks: tuple[Worker, Worker],
) -> None:
    old, new = banks
    packet = initial(OLD)
    new.receive(packet)
    old.turn()
    assert old.accepted == []
    new.turn()
    assert new.accepted == [packet]
    # And it is not asked again.
    new.receive(packet)
    assert new.accepted == [packet, packet]


def test_newcomers_that_waited_at_the_old_bank_are_passed_on(banks: tuple[Worker, Worker]) -> None:
    old, new = banks
    for packet in (initial(OLD), initial(NEW), initial(77)):
        old.receive(packet)
        new.turn()
        assert new.accepted.pop() == packet
    assert old.accepted == []


def test_newcomers_where_the_new_bank_is_not_stay_with_the_old_one(
    banks: tuple[Worker, Worker],
) -> None:
    old, new = banks
    data = initial(slot_number(0, 30))
    with contextlib.ExitStack() as stack:
        outbox = stack.enter_context(old.forwarder._outboxes[OLD].dup())
        to = new.forwarder._outboxes[NEW].fileno()
        announce(outbox, 1, [to], 1, ["192.0.2.1:443"])
        old.turn()
        old.receive(data)
        new.turn()
        assert (old.accepted, new.accepted) == ([data], [])
        announce(outbox, 1, [to], 1)  # says nothing new of addresses
        old.turn()
        old.receive(data)
        assert old.accepted == [data, data]
        here = old.forwarder._addresses[old.path.socket]
        announce(outbox, 1, [to], 1, ["192.0.2.1:443", here])
        old.turn()
        old.receive(data)
        new.turn()
        assert (old.accepted, new.accepted) == ([data, data], [data])


def test_first_packets_are_offered_to_the_old_bank_for_a_while_only(
    banks: tuple[Worker, Worker], clock: list[float]
) -> None:
    _, new = banks
    clock[0] += FORWARD_LOOK_BACK + 1
    packet = initial(OLD)
    new.receive(packet)
    assert new.accepted == [packet]


def test_a_bank_that_is_gone_gets_nothing_more(banks: tuple[Worker, Worker]) -> None:
    _, new = banks
    announce(new.forwarder._outboxes[NEW], 0, [], active=1)
    new.turn()
    for packet in (short(OLD), initial(OLD)):
        new.receive(packet)
        assert new.accepted.pop() == packet


def test_what_is_remembered_is_bounded(banks: tuple[Worker, Worker]) -> None:
    old, new = banks
    for _ in range(FORWARD_RETURNED + 100):
        old.receive(initial(OLD))
        new.turn()
    assert len(new.forwarder._returned) <= FORWARD_RETURNED
    assert len(new.accepted) == FORWARD_RETURNED + 100


def test_messages_that_are_none_are_dropped_and_counted(banks: tuple[Worker, Worker]) -> None:
    _, new = banks
    outbox = new.forwarder._outboxes[NEW]
    before = len(os.listdir("/proc/self/fd"))
    for data in (b"", b"\xc1", b"\x92\xa8datagram\x01"):
        socket.send_fds(outbox, [data], [0])
    new.turn()
    assert new.forwarder.counters["forward_dropped"] == 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_another_host_relays_stays_with_the_worker_that_got_it(
    banks: tuple[Worker, Worker],
) -> None:
    """Its client is answered through that host, which no other worker of ours could do."""
    old, new = banks
    relayed = FourTuple(("192.0.2.7", 9), b"", cast(UdpSocket, object()))
    for worker, packet in ((new, short(OLD)), (old, initial(OLD))):
        worker.receive(packet, relayed)
        assert worker.accepted == [packet]
