"""A UDP load balancer with NAT: hosts see its addresses, and answer through it."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Choose = Callable[[bytes, tuple[str, int]], tuple[str, int]]
"""A datagram and its client -> the host that it goes to."""


class Balancer:
    """Relays the datagrams of each client to the host that `choose` names.

    A client has one port towards each host, and a new one each time it is sent to another host.
    """

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.moves = 0
        """How often a client was sent to another host than before."""
        self._inside = _socket()
        self.port = int(self._inside.getsockname()[1])
        self._flows: dict[tuple[str, int], tuple[tuple[str, int], socket.socket]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inside, selectors.EVENT_READ)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._inside:
                    self._from_client(*self._inside.recvfrom(65536))
                else:
                    self._from_host(key.fileobj, key.data)

    def _from_client(self, data: bytes, client: tuple[str, int]) -> None:
        host = self.choose(data, client)
        known = self._flows.get(client)
        if known is None or known[0] != host:
            sock = _socket()
            # Late answers to the old port still arrive.
            self._selector.register(sock, selectors.EVENT_READ, client)
            self.moves += known is not None
            known = self._flows[client] = host, sock
        known[1].sendto(data, host)

    def _from_host(self, sock: object, client: tuple[str, int]) -> None:
        assert isinstance(sock, socket.socket)
        data, host = sock.recvfrom(65536)
        known = self._flows[client]
        if known[1] is sock and known[0] != host:
            return  # as a NAT does: nobody else may answer
        self._inside.sendto(data, client)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def balancer(choose: Choose) -> Iterator[Balancer]:
    """A running balancer; clients talk to its `port`."""
    box = Balancer(choose)
    box.start()
    try:
        yield box
    finally:
        box.close()
