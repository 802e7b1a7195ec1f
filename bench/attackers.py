"""Clients that keep most rules and cost as much as they can, for `make soak ARGS=attacks`.

Usage: attackers.py KIND PORT. All come from one address, with at most CONNECTIONS connections and
RATE bytes per second. Says `{"ready": ...}`, attacks until standard input ends, then prints how
many bytes it sent.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvloop
from aioquic.buffer import encode_uint_var

from bench.soakload import say, until_told
from tests.support.hostile_h3 import HostileClient, hostile_client
from tests.support.initials import crypto_frame, initial

ADDRESS = "127.7.7.7"
CONNECTIONS = 50
RATE = 1_000_000
STREAMS = 100
"""Requests per connection at a time; the edge allows 128."""

PING_SECONDS = 10.0
RECONNECT_SECONDS = 0.5


class Meter:
    """A transport that counts what leaves, and drops what is beyond RATE, as an uplink would."""

    def __init__(self, transport: asyncio.DatagramTransport, total: Total) -> None:
        self._transport = transport
        self._total = total

    def sendto(self, data: bytes, address: Any = None) -> None:
        if self._total.allows(len(data)):
            self._transport.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Total:
    """What all attackers sent, in bytes, and a token bucket of half a second's worth."""

    def __init__(self) -> None:
        self.sent = 0
        self._level = RATE / 2
        self._at = time.monotonic()

    def allows(self, nbytes: int) -> bool:
        now = time.monotonic()
        self._level = min(RATE / 2, self._level + (now - self._at) * RATE)
        self._at = now
        if self._level < nbytes:
            return False
        self._level -= nbytes
        self.sent += nbytes
        return True

    @property
    def room(self) -> float:
        """Bytes that may be sent at once."""
        return min(RATE / 2, self._level + (time.monotonic() - self._at) * RATE)


Attack = Callable[[HostileClient], Awaitable[None]]


async def connections(port: int, total: Total, attack: Attack, **options: Any) -> None:
    """CONNECTIONS of them, each made anew when the edge has ended it."""

    async def one() -> None:
        while True:
            with suppress(ConnectionError, TimeoutError, AssertionError, ValueError):
                await live(port, total, attack, **options)
            await asyncio.sleep(RECONNECT_SECONDS)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def live(port: int, total: Total, attack: Attack, **options: Any) -> None:
    def metered(transport: asyncio.DatagramTransport) -> Meter:
        return Meter(transport, total)

    async with hostile_client(port, ADDRESS, metered, **options) as client:
        attacking = asyncio.ensure_future(attack(client))
        try:
            while not client.ended and not attacking.done():
                client.ping()
                await asyncio.wait((attacking,), timeout=PING_SECONDS)
        finally:
            attacking.cancel()


async def ask_for(client: HostileClient, path: bytes) -> None:
    """Keep STREAMS requests going; whatever the edge resets is asked for again."""
    while True:
        for _ in range(STREAMS):
            if not client.may_open():
                break
            client.ask(path)
        client.transmit()
        await asyncio.sleep(0.5)


async def unread_large(client: HostileClient) -> None:
    await ask_for(client, b"/download?size=1MB")


async def unread_small(client: HostileClient) -> None:
    await ask_for(client, b"/download?size=240KB")


async def unread_files(client: HostileClient) -> None:
    await ask_for(client, b"/files/large")


async def begun_bodies(client: HostileClient) -> None:
    """One byte of each of many bodies."""
    while True:
        for _ in range(STREAMS):
            if not client.may_open():
                break
            client.write(client.ask(b"/upload", b"POST", end=False), b"x")
        client.transmit()
        await asyncio.sleep(0.5)


async def trickling_readers(client: HostileClient) -> None:
    """1.5 KB of each response every 20 seconds."""
    streams = [client.ask(b"/download?size=240KB") for _ in range(STREAMS)]
    client.transmit()
    limit = 0
    while True:
        await asyncio.sleep(20)
        limit += 1536
        for stream_id in streams:
            client.send_frames(b"\x11" + encode_uint_var(stream_id) + encode_uint_var(limit))


async def stalled_uploads(client: HostileClient) -> None:
    """As much of many bodies as the edge lets in, for an origin that reads nothing for an hour."""
    streams: list[int] = []
    while True:
        while len(streams) < STREAMS and client.may_open():
            streams.append(client.ask(b"/delay?seconds=3600", b"POST", end=False))
        for stream_id in streams[-STREAMS:]:
            client.write(stream_id, bytes(1000))
        client.transmit()
        await asyncio.sleep(1.0)


def stream_frame(stream_id: int, offset: int, data: bytes) -> bytes:
    head = b"\x0e" + encode_uint_var(stream_id) + encode_uint_var(offset)
    return head + encode_uint_var(len(data)) + data


async def sparse_streams(client: HostileClient) -> None:
    """One byte every 4 KB over four streams, never their first."""
    while True:
        for number in range(4):
            for first in range(0, 1_000_000, 200 * 4096):
                frames = [
                    stream_frame(4 * number, offset + 4095, b"x")
                    for offset in range(first, min(first + 200 * 4096, 1_000_000), 4096)
                ]
                for at in range(0, len(frames), 100):
                    client.send_frames(b"".join(frames[at : at + 100]))
        await asyncio.sleep(5)


async def stream_pieces(client: HostileClient) -> None:
    """Every other byte of a window, and then the farthest one again and again."""
    for first in range(2, 2000, 240):
        client.send_frames(
            b"".join(stream_frame(0, offset, b"x") for offset in range(first, first + 240, 2))
        )
    again = b"".join(stream_frame(0, offset, b"x") for offset in [*range(1960, 2000, 2)] * 6)
    while True:
        client.send_frames(again)
        await asyncio.sleep(len(again) * CONNECTIONS / RATE)


async def crypto_pieces(client: HostileClient) -> None:
    """The same in the CRYPTO stream after the handshake."""
    for first in range(2, 2000, 240):
        client.send_frames(
            b"".join(crypto_frame(offset, b"x") for offset in range(first, first + 240, 2))
        )
    again = b"".join(crypto_frame(offset, b"x") for offset in [*range(1960, 2000, 2)] * 6)
    while True:
        client.send_frames(again)
        await asyncio.sleep(len(again) * CONNECTIONS / RATE)


async def initial_pieces(port: int, total: Total) -> None:
    """CRYPTO frames of Initial packets in the most expensive order; no reply is needed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 0))
    spread = [range(first, first + 400, 2) for first in range(2, 2000, 400)]
    flights = []
    for _ in range(CONNECTIONS):
        dcid, scid = os.urandom(8), os.urandom(8)
        frames = [b"".join(crypto_frame(at, b"x") for at in offsets) for offsets in spread]
        frames += [crypto_frame(1998, b"x") * 200] * 40
        flights.append([initial(f, dcid=dcid, scid=scid, number=n) for n, f in enumerate(frames)])
    while True:
        for flight in flights:
            for datagram in flight:
                while total.room < len(datagram):
                    await asyncio.sleep(0.005)
                if total.allows(len(datagram)):
                    with suppress(OSError):
                        sock.sendto(datagram, ("127.0.0.1", port))
            await asyncio.sleep(0)
        random.shuffle(flights)


KINDS: dict[str, tuple[Attack, dict[str, Any]]] = {
    "unread_large": (unread_large, {"max_stream_data": 0}),
    "unread_small": (unread_small, {"max_stream_data": 0}),
    "unread_files": (unread_files, {"max_stream_data": 0}),
    "begun_bodies": (begun_bodies, {}),
    "trickling_readers": (trickling_readers, {"max_stream_data": 0}),
    "stalled_uploads": (stalled_uploads, {}),
    "sparse_streams": (sparse_streams, {}),
    "stream_pieces": (stream_pieces, {}),
    "crypto_pieces": (crypto_pieces, {}),
}


async def main(kind: str, port: int) -> None:
    total = Total()
    if kind == "initial_pieces":
        attack = initial_pieces(port, total)
    else:
        attack = connections(port, total, KINDS[kind][0], **KINDS[kind][1])
    task = asyncio.ensure_future(attack)
    say(ready=True)
    await until_told()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    say(sent=total.sent)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in (*KINDS, "initial_pieces"):
        sys.exit(__doc__)
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
