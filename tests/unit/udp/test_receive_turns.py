"""Reading ends when handlers have taken their time, or enough was read."""

from __future__ import annotations

import socket

from quicedge.config.limits import UDP_SECONDS_PER_WAKEUP
from quicedge.udp.socket import UdpSocket, open_socket


def test_reading_ends_when_handlers_have_taken_their_time() -> None:
    now = 0.0
    received: list[bytes] = []

    def handler(datagrams: list[bytes], path: object, ecn: int) -> None:
        nonlocal now
        received.extend(datagrams)
        now += UDP_SECONDS_PER_WAKEUP

    server = open_socket(socket.AF_INET, "127.0.0.1", 0)
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
    try:
        udp = UdpSocket(server)
        for number, sender in enumerate(senders):
            sender.sendto(b"%d" % number, server.getsockname())
        turns = 0
        while len(received) < 10:
            turns += 1
            assert udp.receive(handler, lambda: now) in (1, 2, 3)
        assert sorted(received) == [b"%d" % n for n in range(10)]
        assert turns >= 4
        for sender in senders:
            sender.sendto(b"again", server.getsockname())
        assert udp.receive(handler) == 10, "without a clock only the amount counts"
    finally:
        server.close()
        for sender in senders:
            sender.close()
