"""Forwarding of datagrams that arrived at the wrong worker.

If the kernel cannot steer by connection ID, a client whose address changes reaches an arbitrary
worker. Workers then steer in user space: the first byte of the connection ID identifies the owner
(`udp.connection_id_codec`), and the datagram is forwarded to it over a unix datagram socket, with
everything needed to reply.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import msgspec

from quicedge.config.limits import FORWARD_MESSAGE, FORWARDED_PER_WAKEUP
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
from quicedge.udp.socket import FourTuple, Sender, UdpSocket


class _Forwarded(msgspec.Struct, array_like=True):
    listener: int
    """Index of the local address, for which each worker has a socket."""
    ecn: int
    local: bytes
    remote: tuple[str | int, ...]
    data: bytes


_decoder = msgspec.msgpack.Decoder(_Forwarded)
_encoder = msgspec.msgpack.Encoder()


class Forwarder:
    """One worker's end: `forward` sends to others, `receive` reads what others forwarded.

    `outboxes[k]` leads to the inbox of the worker in slot k. Sockets are non-blocking; datagrams
    that do not fit are dropped, as a network would, and counted.
    """

    def __init__(
        self, slot: int, inbox: socket.socket, outboxes: list[socket.socket],
        sockets: list[UdpSocket], layout: ConnectionIdLayout = PLAIN,
    ) -> None:  # fmt: skip
        self.counters: Counter[str] = Counter()
        self._slot = slot
        self._inbox = inbox
        self._outboxes = outboxes
        self._codec = ConnectionIdCodec(len(outboxes), layout)
        self._sockets = sockets
        self._index: dict[Sender, int] = {sock: at for at, sock in enumerate(sockets)}

    def fileno(self) -> int:
        return self._inbox.fileno()

    def forward(self, data: bytes, path: FourTuple, ecn: int) -> bool:
        """Forward a datagram of an unknown connection; False if this worker is its owner."""
        owner = self._codec.slot_of(data)
        if owner == self._slot:
            return False
        listener = self._index[path.socket]
        message = _Forwarded(listener, ecn, path.local, path.remote, data)
        try:
            self._outboxes[owner].send(_encoder.encode(message))
            self.counters["datagrams_forwarded"] += 1
        except OSError:
            self.counters["forward_dropped"] += 1
        return True

    def receive(self, handler: Callable[[bytes, FourTuple, int], None]) -> None:
        """Deliver a bounded number of datagrams that others forwarded."""
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
