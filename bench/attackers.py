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
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvloop
from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from bench.hostile_client import HostileClient
from bench.soakload import say, until_told
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


class Attacker(HostileClient):
    """One connection, and packets of any content in it."""

    def write(self, stream_id: int, data: bytes) -> None:
        assert self._http is not None
        self._http.send_data(stream_id, data, end_stream=False)

    def may_open(self) -> bool:
        opened = self._quic._local_next_stream_id_bidi // 4
        return bool(opened < self._quic._remote_max_streams_bidi)

    def send_frames(self, frames: bytes) -> None:
        """One 1-RTT packet with these frames."""
        quic = self._quic
        crypto = quic._cryptos[tls.Epoch.ONE_RTT]
        number = quic._packet_number
        quic._packet_number += 1
        header = bytes((0x41 | crypto.key_phase << 2,)) + quic._peer_cid.cid
        header += (number & 0xFFFF).to_bytes(2, "big")
        packet = crypto.send.encrypt_packet(header, frames.ljust(4, b"\0"), number)
        self._transport.sendto(packet, quic._network_paths[0].addr)


Attack = Callable[[Attacker], Awaitable[None]]


async def connections(port: int, total: Total, attack: Attack, **options: Any) -> None:
    """CONNECTIONS of them, each made anew when the edge has ended it."""

    async def one() -> None:
        while True:
            with suppress(ConnectionError, TimeoutError, AssertionError, ValueError):
                await live(port, total, attack, **options)
            await asyncio.sleep(RECONNECT_SECONDS)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def live(port: int, total: Total, attack: Attack, **options: Any) -> None:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
        server_name="localhost", **options,
    )  # fmt: skip
    quic = QuicConnection(configuration=configuration)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 0))
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(lambda: Attacker(quic), sock=sock)
    try:
        client._transport = Meter(transport, total)  # type: ignore[assignment]
        client.connect(("127.0.0.1", port))
        async with asyncio.timeout(5):
            await client.wait_connected()
        attacking = asyncio.ensure_future(attack(client))
        try:
            while not client.ended and not attacking.done():
                client._quic.send_ping(1)
                client.transmit()
                await asyncio.wait((attacking,), timeout=PING_SECONDS)
        finally:
            attacking.cancel()
    finally:
        client.close()
        transport.close()


async def ask_for(client: Attacker, path: bytes) -> None:
    """Keep STREAMS requests going; whatever the edge resets is asked for again."""
    while True:
        for _ in range(STREAMS):
            if not client.may_open():
                break
            client.ask(path)
        client.transmit()
        await asyncio.sleep(0.5)


async def unread_large(client: Attacker) -> None:
    await ask_for(client, b"/download?size=1MB")


async def unread_small(client: Attacker) -> None:
    await ask_for(client, b"/download?size=240KB")


async def unread_files(client: Attacker) -> None:
    await ask_for(client, b"/files/large")


async def begun_bodies(client: Attacker) -> None:
    """One byte of each of many bodies."""
    while True:
        for _ in range(STREAMS):
            if not client.may_open():
                break
            client.write(client.ask(b"/upload", b"POST", end=False), b"x")
        client.transmit()
        await asyncio.sleep(0.5)


async def trickling_readers(client: Attacker) -> None:
    """1.5 KB of each response every 20 seconds."""
    streams = [client.ask(b"/download?size=240KB") for _ in range(STREAMS)]
    client.transmit()
    limit = 0
    while True:
        await asyncio.sleep(20)
        limit += 1536
        for stream_id in streams:
            client.send_frames(b"\x11" + encode_uint_var(stream_id) + encode_uint_var(limit))


async def stalled_uploads(client: Attacker) -> None:
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


async def sparse_streams(client: Attacker) -> None:
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


async def stream_pieces(client: Attacker) -> None:
    """Every other byte of a window, and then the farthest one again and again."""
    for first in range(2, 2000, 240):
        client.send_frames(
            b"".join(stream_frame(0, offset, b"x") for offset in range(first, first + 240, 2))
        )
    again = b"".join(stream_frame(0, offset, b"x") for offset in [*range(1960, 2000, 2)] * 6)
    while True:
        client.send_frames(again)
        await asyncio.sleep(len(again) * CONNECTIONS / RATE)


async def crypto_pieces(client: Attacker) -> None:
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
