"""A NAT in front of the edge that forgets its bindings."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Nat:
    """Relays datagrams of one client; takes a new port towards the edge every `every` datagrams
    from the client, `rebindings` times."""

    def __init__(self, edge_port: int, every: int, rebindings: int) -> None:
        self.rebindings = 0
        self._edge = "127.0.0.1", edge_port
        self._every = every
        self._left = rebindings
        self._inside = self._socket()
        self._outside = self._socket()
        self._client: tuple[str, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = int(self._inside.getsockname()[1])

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("127.0.0.1", 0))
        return sock

    def _run(self) -> None:
        since = 0
        while not self._stop.is_set():
            readable, _, _ = select.select([self._inside, self._outside], [], [], 0.1)
            if self._inside in readable:
                data, self._client = self._inside.recvfrom(65536)
                since += 1
                if since > self._every and self._left:
                    since, self._left = 0, self._left - 1
                    self._outside.close()
                    self._outside = self._socket()
                    self.rebindings += 1
                self._outside.sendto(data, self._edge)
                continue
            if self._outside in readable and self._client is not None:
                self._inside.sendto(self._outside.recv(65536), self._client)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._inside.close()
        self._outside.close()


@contextmanager
def nat(edge_port: int, *, every: int, rebindings: int) -> Iterator[Nat]:
    """A running NAT; clients talk to its `port`."""
    box = Nat(edge_port, every, rebindings)
    box.start()
    try:
        yield box
    finally:
        box.close()
