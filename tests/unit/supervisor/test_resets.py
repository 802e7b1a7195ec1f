"""Resets that nobody asked for: who gets them, from where, and what else a roster may hold."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.supervisor.resets import UnsolicitedResets
from quicedge.worker.roster import Client

SECRET = b"s" * 32
UNKNOWN = b""


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def received(sock: socket.socket) -> list[tuple[bytes, Any]]:
    found = []
    try:
        while True:
            found.append(sock.recvfrom(2048))
    except BlockingIOError:
        return found


def test_every_client_is_reset_twice_whatever_else_the_memory_holds() -> None:
    listener, clients = udp(), [udp() for _ in range(3)]
    good = [
        Client(0, sock.getsockname(), UNKNOWN, bytes((number,)) * 8)
        for number, sock in enumerate(clients)
    ]
    nonsense = [
        Client(9, ("127.0.0.1", 4), UNKNOWN, b"listener"),
        Client(0, ("2001:db8::1", 4, 0, 0), UNKNOWN, b"otherfam"),
        Client(0, ("127.0.0.1", 0), UNKNOWN, b"port of 0"[:8]),
        Client(0, ("127.0.0.1", 4), bytes(12), b"nowhere."),
        Client(0, ("127.0.0.1", 4), b"x" * 7, b"cutshort"),
    ]

    async def send() -> None:
        resets = UnsolicitedResets(SECRET)
        resets.send(0, [*nonsense, *good], [listener])
        await resets.close()

    asyncio.run(send())
    tokens = ConnectionIdIssuer(secret=SECRET)
    for client, sock in zip(good, clients, strict=True):
        answers = received(sock)
        assert len(answers) == 2
        for data, source in answers:
            assert source == listener.getsockname()
            assert data[-16:] == tokens.reset_token(client.connection_id)
            assert data[0] & 0xC0 == 0x40
        sock.close()
    listener.close()
