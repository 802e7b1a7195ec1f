"""Floods of the soak test, from other loopback addresses than those of the honest clients.

Usage: floods.py KIND PORT RATE; says `{"ready": ...}`, floods until standard input ends, then
prints how much it sent. RATE is datagrams, streams or connections per second.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import uvloop

from bench.soakload import say, until_told
from tests.support.hostile_h3 import hostile_client
from tests.support.initials import crypto_frame, initial

PREPARED = 3000
"""Initials sealed beforehand: sealing costs the attacker more than sending."""

SOCKETS = 64
SLOW_CONNECTIONS = 100
BATCH = 20


def hello_begun() -> bytes:
    """The first kilobyte of a ClientHello of 4 KB: the server has to wait for the rest."""
    return crypto_frame(0, b"\x01\0\x10\0\x03\x03" + os.urandom(900))


def initials() -> list[bytes]:
    return [initial(hello_begun()) for _ in range(PREPARED)]


def garbage() -> list[bytes]:
    """Short headers with unknown connection IDs, long headers of any version, and noise."""
    heads = (b"\x40", b"\xc0\0\0\0\1\x08", b"\xe0\0\0\0\1\x08", b"\xc0\x6b\x33\x43\xcf", b"")
    return [head + os.urandom(random.choice((20, 200, 1200))) for head in heads for _ in range(200)]


def datagrams(port: int, rate: float, prepared: list[bytes]) -> None:
    """Send from many addresses of 127.0.0.0/8, as if each were forged."""
    sockets = []
    for _ in range(SOCKETS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((f"127.{random.randint(1, 250)}.{random.randint(0, 250)}.7", 0))
        sockets.append(sock)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    say(ready=len(prepared))
    sent = 0
    started = time.monotonic()
    endless = _cycle(prepared)
    while not stop.is_set():
        behind = int((time.monotonic() - started) * rate) - sent
        for _ in range(min(behind, BATCH)):
            try:
                random.choice(sockets).sendto(next(endless), ("127.0.0.1", port))
            except OSError:
                pass  # our own buffers are full: the flood is as fast as it gets
            sent += 1
        stop.wait(0.001)
    say(sent=sent)


def _cycle(prepared: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from prepared


def source() -> str:
    """A random address of 127.0.0.0/16."""
    return f"127.0.{random.randint(1, 250)}.9"


async def rapid_resets(port: int, rate: float) -> None:
    """Reset requests immediately; reconnect when the connection is closed."""
    while True:
        try:
            async with hostile_client(port, source()) as client:
                while not client.ended:
                    for _ in range(BATCH):
                        client.cancel(client.ask(b"/download?size=100000"))
                    _sent[0] += BATCH
                    client.transmit()
                    await asyncio.sleep(BATCH / rate)
        except (ConnectionError, TimeoutError):
            await asyncio.sleep(0.05)


async def slow_clients(port: int, rate: float) -> None:
    """Send bodies byte by byte; reconnect when the connection is closed."""

    async def one() -> None:
        while True:
            try:
                async with hostile_client(port, source()) as client:
                    stream_id = client.ask(b"/upload", b"POST", end=False)
                    while not client.ended:
                        client.write(stream_id, b"x")
                        client.transmit()
                        _sent[0] += 1
                        await asyncio.sleep(SLOW_CONNECTIONS / rate)
            except (ConnectionError, TimeoutError, ValueError):
                await asyncio.sleep(1)  # thrown out, or its stream was reset

    await asyncio.gather(*(one() for _ in range(SLOW_CONNECTIONS)))


_sent = [0]


async def clients(port: int, rate: float, flood: Callable[[int, float], object]) -> None:
    task = asyncio.ensure_future(flood(port, rate))  # type: ignore[arg-type]
    say(ready=True)
    await until_told()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    say(sent=_sent[0])


def main(kind: str, port: int, rate: float) -> None:
    match kind:
        case "initials":
            datagrams(port, rate, initials())
        case "garbage":
            datagrams(port, rate, garbage())
        case "resets":
            uvloop.run(clients(port, rate, rapid_resets))
        case "slow":
            uvloop.run(clients(port, rate, slow_clients))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
