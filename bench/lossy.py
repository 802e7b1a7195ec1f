"""A lossy path to a server behind a NAT that rebinds each client to a new port now and then.

Usage: lossy.py SERVER_PORT LOSS REBIND_SECONDS; prints the port that clients should talk to.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys

import uvloop

SILENCE = 0.05
"""Seconds of a client's silence before its binding may change, as NATs do it: what comes then wants
an answer. Had it been a mere ACK, and lost, nobody could know where the client is."""

MAX_FLOWS = 10_000
BUFFER = 4 << 20


class Flow:
    """The NAT binding of one client."""

    def __init__(self, forwarder: Forwarder, client: tuple[str, int]) -> None:
        self._forwarder = forwarder
        self._client = client
        self._outside: socket.socket | None = None
        self.spoke = 0.0
        self.bind()

    def bind(self) -> None:
        """Take a new port towards the server; the old one's answers are lost, as with a NAT."""
        self.close()
        loop = self._forwarder.loop
        self._outside = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(("127.0.0.1", self._forwarder.server))
        self.until = loop.time() + random.uniform(0.5, 1.5) * self._forwarder.rebind
        loop.add_reader(sock, self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except OSError:
            return
        self._forwarder.inwards(data, self._client)

    def outwards(self, data: bytes) -> None:
        assert self._outside is not None
        try:
            self._outside.send(data)
        except OSError:
            self._forwarder.lost += 1

    def close(self) -> None:
        if self._outside is not None:
            self._forwarder.loop.remove_reader(self._outside)
            self._outside.close()


class Forwarder:
    """Relays datagrams between clients and one server; loses some both ways."""

    def __init__(self, server: int, loss: float, rebind: float) -> None:
        self.server, self.rebind = server, rebind
        self.lost = self.rebindings = 0
        self._loss = loss
        self._flows: dict[tuple[str, int], Flow] = {}
        self._inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._inside.setblocking(False)
        self._inside.bind(("127.0.0.1", 0))
        self.port = self._inside.getsockname()[1]
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self._inside, self._readable)

    def _is_lost(self) -> bool:
        if random.random() >= self._loss:
            return False
        self.lost += 1
        return True

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, client = self._inside.recvfrom(65536)
            except OSError:
                return
            flow = self._flows.get(client)
            if flow is None:
                if len(self._flows) >= MAX_FLOWS:
                    self._flows.pop(next(iter(self._flows))).close()
                flow = self._flows[client] = Flow(self, client)
            elif self.loop.time() > max(flow.until, flow.spoke + SILENCE):
                flow.bind()
                self.rebindings += 1
            flow.spoke = self.loop.time()
            if not self._is_lost():
                flow.outwards(data)

    def inwards(self, data: bytes, client: tuple[str, int]) -> None:
        if not self._is_lost():
            try:
                self._inside.sendto(data, client)
            except OSError:
                self.lost += 1


async def main() -> None:
    forwarder = Forwarder(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps({"port": forwarder.port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps({"lost": forwarder.lost, "rebindings": forwarder.rebindings}))


if __name__ == "__main__":
    uvloop.run(main())
