"""Datagrams that came to the wrong worker, on their way to the right one.

Where the kernel cannot steer by connection ID, a client whose address changes lands anywhere. The
workers then do in user space what the kernel does not: the first byte of the connection ID names
the owner (`udp.steering`), and the datagram goes to it over a unix datagram socket, with all that
an answer needs.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import msgspec

from quicedge.config.limits import FORWARD_MESSAGE, FORWARDED_PER_WAKEUP
from quicedge.udp.socket import FourTuple, UdpSocket
from quicedge.udp.steering import slot_for


class _Forwarded(msgspec.Struct, array_like=True):
    listener: int
    """Index of the address that it came to: each worker has a socket of it."""
    ecn: int
    local: bytes
    remote: tuple[str | int, ...]
    data: bytes


_decoder = msgspec.msgpack.Decoder(_Forwarded)
_encoder = msgspec.msgpack.Encoder()


class Forwarder:
    """One worker's end: `forward` to others, `receive` what others forwarded.

    `outboxes[k]` leads to the inbox of the worker in slot k. Sockets are non-blocking; what has no
    room is dropped and counted, as a network would.
    """

    def __init__(
        self, slot: int, inbox: socket.socket, outboxes: list[socket.socket],
        sockets: list[UdpSocket],
    ) -> None:  # fmt: skip
        self.counters: Counter[str] = Counter()
        self._slot = slot
        self._inbox = inbox
        self._outboxes = outboxes
        self._sockets = sockets

    def fileno(self) -> int:
        return self._inbox.fileno()

    def forward(self, data: bytes, path: FourTuple, ecn: int) -> bool:
        """Pass a datagram of no known connection on; False when it is this worker's own."""
        owner = slot_for(data, len(self._outboxes))
        if owner == self._slot:
            return False
        listener = self._sockets.index(path.socket)
        message = _Forwarded(listener, ecn, path.local, path.remote, data)
        try:
            self._outboxes[owner].send(_encoder.encode(message))
            self.counters["datagrams_forwarded"] += 1
        except OSError:
            self.counters["forward_dropped"] += 1
        return True

    def receive(self, handler: Callable[[bytes, FourTuple, int], None]) -> None:
        """Hand over what others forwarded, a bounded number."""
        for _ in range(FORWARDED_PER_WAKEUP):
            try:
                message = _decoder.decode(self._inbox.recv(FORWARD_MESSAGE))
            except BlockingIOError:
                return
            except (OSError, msgspec.MsgspecError):
                self.counters["forward_dropped"] += 1
                continue
            sock = self._sockets[message.listener]
            handler(message.data, sock.path(message.remote, message.local), message.ecn)

    def close(self) -> None:
        for sock in (self._inbox, *self._outboxes):
            sock.close()
