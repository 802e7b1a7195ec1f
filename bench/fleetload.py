"""Clients of a fleet that migrate and rebind, by stock aioquic; every byte is checked.

Usage: fleetload.py HOST PORT N INTERVAL KEY SOURCE..., with the key of server IDs (`-`: none) and
the addresses that clients come from. Commands are read from standard input, one per line, each
answered by a line of JSON: `state`, `fresh N` (short-lived clients, by the host that they reach),
`stop`.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence

import uvloop
from aioquic.asyncio import connect
from aioquic.h3.connection import H3_ALPN, ErrorCode
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent

from quicedge.udp.quic_lb import QuicLb
from tests.support.download_client import SIZE, DownloadClient

AT_ONCE = 12
"""Handshakes in progress."""
LARGE = 150_000
SERVER_ID_LENGTH, NONCE_LENGTH = 2, 8
TIMEOUT = 30.0
IDLE_TIMEOUT = 40.0
"""Seconds; a client that no one resets waits as long."""


class FleetClient(DownloadClient):
    """A client that knows which host has its connection, and that moves."""

    ended_at: float | None = None
    """When it was told that its connection is over."""
    error_code: int | None = None
    host = ""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended_at = time.monotonic()
            self.error_code = event.error_code
        super().quic_event_received(event)

    def datagram_received(self, data: bytes | str, addr: object) -> None:
        """aioquic does not look for stateless resets."""
        token = self._quic._peer_cid.stateless_reset_token
        if isinstance(data, bytes) and token and data[-16:] == token and not data[0] & 0x80:
            self.ended_at = time.monotonic()
            self.fail("stateless reset")
            return
        super().datagram_received(data, addr)  # type: ignore[arg-type]

    def learn_host(self, lb: QuicLb) -> None:
        """The server ID, which nobody but this test and the balancer can read."""
        self.host = lb.decode(self._quic._peer_cid.cid).hex()

    async def move(self, sources: Sequence[str], *, fresh_id: bool) -> None:
        """Continue from another address and port; with the same connection ID as behind a NAT, or
        with another as a client that migrates."""
        old = self._transport
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((f"::ffff:{random.choice(sources)}", 0))
        # `connection_made` takes it for ours.
        await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        assert old is not None
        old.close()
        if fresh_id:
            self._quic.change_connection_id()
        # A client that is owed an answer and owes nothing would wait for ever at its new port.
        self.ping()

    @property
    def is_refused(self) -> bool:
        """The host ended the connection as one that drains may: the client connects again."""
        return self.error_code == ErrorCode.H3_NO_ERROR


class Load:
    def __init__(self, address: tuple[str, int], lb: QuicLb, sources: list[str]) -> None:
        self._address = address
        self._lb = lb
        self._sources = sources
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        """Connections that ended without being refused, by host."""
        self.slow_ends: list[float] = []
        """Seconds from a request to the end of its lost connection."""
        self.clients: dict[int, FleetClient] = {}
        self.stopping = asyncio.Event()
        self._handshakes = asyncio.Semaphore(AT_ONCE)

    def connection(self) -> object:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
            server_name="localhost", max_datagram_size=1350, idle_timeout=IDLE_TIMEOUT,
        )  # fmt: skip
        return connect(
            *self._address, configuration=configuration, create_protocol=FleetClient,
            local_port=0,
        )  # fmt: skip

    async def live(self, number: int, interval: float) -> None:
        """One client until the load stops: connects again when its host ends the connection."""
        while not self.stopping.is_set():
            try:
                async with self._handshakes:
                    entered = self.connection()
                    client: FleetClient = await entered.__aenter__()  # type: ignore[attr-defined]
            except (ConnectionError, TimeoutError, OSError) as error:
                self.failed[f"handshake: {error or type(error).__name__}"] += 1
                await asyncio.sleep(0.5)
                continue
            client.learn_host(self._lb)
            self.clients[number] = client
            self.done["connections"] += 1
            try:
                await self._work(client, interval)
            finally:
                self.clients.pop(number, None)
                client.close()
                client._transport.close()

    async def _work(self, client: FleetClient, interval: float) -> None:
        while True:
            try:
                async with asyncio.timeout(random.uniform(0, 2 * interval)):
                    await self.stopping.wait()
                return
            except TimeoutError:
                pass
            asked = time.monotonic()
            try:
                large = random.random() < 0.2
                answer = client.request(LARGE if large else SIZE)
                if random.random() < 0.5:
                    await client.move(self._sources, fresh_id=random.random() < 0.5)
                    self.done["moves"] += 1
                await asyncio.wait_for(answer, TIMEOUT)
                self.done["large" if large else "small"] += 1
            except (RuntimeError, TimeoutError) as error:
                if client.is_refused or "error_code=267" in str(error):
                    self.done["refused"] += 1  # H3_REQUEST_REJECTED may be sent again
                else:
                    self.lost[client.host] += 1
                    self.failed[str(error) or type(error).__name__] += 1
                    if client.ended_at is not None:
                        self.slow_ends.append(client.ended_at - asked)
                return

    async def fresh(self, total: int) -> Counter[str]:
        """The hosts that new clients reach."""
        found: Counter[str] = Counter()

        async def one() -> None:
            try:
                async with self._handshakes, self.connection() as client:  # type: ignore[attr-defined]
                    client.learn_host(self._lb)
                    await asyncio.wait_for(client.request(), TIMEOUT)
                    found[client.host] += 1
            except (ConnectionError, RuntimeError, TimeoutError) as error:
                found[f"failed: {error or type(error).__name__}"] += 1

        await asyncio.gather(*(one() for _ in range(total)))
        return found

    def state(self) -> dict[str, object]:
        hosts = Counter(client.host for client in self.clients.values())
        return {
            "hosts": hosts, "done": self.done, "failed": self.failed, "lost": self.lost,
            "slowest_end": max(self.slow_ends, default=0.0),
        }  # fmt: skip


async def main(
    host: str, port: int, total: int, interval: float, key: str, sources: list[str]
) -> None:
    lb = QuicLb(0, SERVER_ID_LENGTH, NONCE_LENGTH, None if key == "-" else bytes.fromhex(key))
    load = Load((host, port), lb, sources)
    tasks = [asyncio.create_task(load.live(number, interval)) for number in range(total)]
    loop = asyncio.get_running_loop()
    for task in tasks:
        # A fault of ours is no loss of theirs.
        task.add_done_callback(lambda done: done.cancelled() or done.result())
    while True:
        command, *rest = (await loop.run_in_executor(None, sys.stdin.readline)).split() or ["stop"]
        if command == "fresh":
            print(json.dumps(await load.fresh(int(rest[0]))), flush=True)
            continue
        if command == "stop":
            load.stopping.set()
            await asyncio.gather(*tasks)
        print(json.dumps(load.state()), flush=True)
        if command == "stop":
            return


if __name__ == "__main__":
    uvloop.run(
        main(
            sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5],
            sys.argv[6:],
        )
    )  # fmt: skip
