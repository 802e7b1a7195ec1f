"""Forwarding of datagrams that arrived at the wrong worker.

Where the kernel cannot steer by connection ID, a client whose address changes reaches an arbitrary
worker. And while two generations of workers live, the kernel takes all first packets to the active
bank, those included with which a client continues a handshake that began in the other one. Workers
then steer in user space: the connection ID identifies the owner (`udp.connection_id_codec`), and
the datagram is forwarded to it over a unix datagram socket, with everything needed to reply.

What comes back unknown from the other bank begins a new connection.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from quicedge.config.host_port import HostPort
from quicedge.config.limits import (
    FORWARD_LOOK_BACK,
    FORWARD_MESSAGE,
    FORWARD_RETURNED,
    FORWARDED_PER_WAKEUP,
    MAX_WORKERS,
)
from quicedge.udp.connection_id_codec import (
    ConnectionIdCodec,
    bank_of,
    is_settled,
    slot_number,
)
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
from quicedge.udp.socket import FourTuple, Sender, UdpSocket


class _Forwarded(msgspec.Struct, array_like=True, tag="datagram"):
    address: str
    """The local address that it arrived at; each worker has a socket for it."""
    ecn: int
    local: bytes
    remote: tuple[str | int, ...]
    data: bytes
    returned: bool = False
    """The other bank does not know it."""


class _Peers(msgspec.Struct, array_like=True, tag="peers"):
    """The workers of a bank, each with a descriptor that comes along; from the supervisor."""

    bank: int
    active: int
    addresses: list[str] | None = None
    """Where the active bank takes new connections; None: as before."""


_Message = _Forwarded | _Peers
_decoder = msgspec.msgpack.Decoder(_Message)
_encoder = msgspec.msgpack.Encoder()


def announce(
    inbox: socket.socket,
    bank: int,
    outboxes: Sequence[int],
    active: int,
    addresses: list[str] | None = None,
) -> None:
    """Tell a worker, at the sending end of its inbox, of the workers of a bank, and which bank
    takes new connections and where; raises OSError."""
    socket.send_fds(inbox, [_encoder.encode(_Peers(bank, active, addresses))], outboxes)


class Forwarder:
    """One worker's end: `forward` sends to others, `receive` reads what others forwarded.

    `outboxes` lead to the inboxes of workers, by slot. Sockets are non-blocking; datagrams that do
    not fit are dropped, as a network would, and counted.
    """

    def __init__(
        self,
        slot: int,
        inbox: socket.socket,
        outboxes: Mapping[int, socket.socket],
        sockets: Sequence[UdpSocket],
        *,
        clock: Callable[[], float],
        layout: ConnectionIdLayout = PLAIN,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.active = bank_of(slot)
        """The bank that takes new connections."""
        self._slot = slot
        self._inbox = inbox
        self._outboxes = dict(outboxes)
        self._codec = ConnectionIdCodec(layout)
        self._clock = clock
        self._taken: list[str] | None = None
        """Addresses where the active bank takes new connections; None: at all of ours."""
        self._look_back_until = clock() + FORWARD_LOOK_BACK
        self._returned: dict[bytes, None] = {}
        """Connection IDs that clients chose for new connections, though they look like ours."""
        self._addresses: dict[Sender, str] = {
            sock: str(HostPort.of(sock.address)) for sock in sockets
        }
        self._sockets = {self._addresses[sock]: sock for sock in sockets}

    def fileno(self) -> int:
        return self._inbox.fileno()

    def forward(self, data: bytes, path: FourTuple, ecn: int) -> bool:
        """Forward a datagram of an unknown connection; False if this worker must deal with it."""
        slot = self._codec.slot_of(data)
        if slot == self._slot or slot not in self._outboxes:
            slot = None
        if is_settled(data):
            return slot is not None and self._send(slot, data, path, ecn)
        if self.has_left():
            workers = sum(bank_of(slot) == self.active for slot in self._outboxes)
            if not workers or not self._is_taken(path):
                return False
            to = slot_number(self.active, self._codec.newcomer_of(data, workers))
            return self._send(to, data, path, ecn, returned=True)
        if slot is None:
            return False
        if bank_of(slot) != self.active and not self._may_be_known(data):
            return False
        return self._send(slot, data, path, ecn)

    def has_left(self) -> bool:
        """Whether another bank takes new connections."""
        return self.active != bank_of(self._slot)

    def _is_taken(self, path: FourTuple) -> bool:
        """Whether the active bank takes new connections where a datagram arrived."""
        return self._taken is None or self._addresses.get(path.socket) in self._taken

    def _may_be_known(self, data: bytes) -> bool:
        """Whether a first packet may continue a handshake that began in the other bank."""
        if self._clock() > self._look_back_until:
            return False
        return self._codec.id_of(data) not in self._returned

    def _send(
        self, slot: int, data: bytes, path: FourTuple, ecn: int, *, returned: bool = False
    ) -> bool:
        address = self._addresses.get(path.socket)
        if address is None:
            return False  # another host answers its client: no other worker of ours could
        message = _Forwarded(address, ecn, path.local, path.remote, data, returned)
        try:
            self._outboxes[slot].send(_encoder.encode(message))
            self.counters["datagrams_forwarded"] += 1
        except OSError:
            self.counters["forward_dropped"] += 1
        return True

    def receive(self, handler: Callable[[bytes, FourTuple, int], None]) -> None:
        """Deliver a bounded number of datagrams that others forwarded."""
        for _ in range(FORWARDED_PER_WAKEUP):
            descriptors: list[int] = []
            try:
                data, descriptors, _, _ = socket.recv_fds(self._inbox, FORWARD_MESSAGE, MAX_WORKERS)
                message: Any = _decoder.decode(data)
            except BlockingIOError:
                return
            except (OSError, msgspec.MsgspecError):
                self.counters["forward_dropped"] += 1
                for fd in descriptors:
                    os.close(fd)
                continue
            if isinstance(message, _Peers):
                self._meet(message, descriptors)
                continue
            for fd in descriptors:
                os.close(fd)
            sock = self._sockets.get(message.address)
            if sock is None:
                self.counters["forward_dropped"] += 1
                continue
            if message.returned:
                self._remember(self._codec.id_of(message.data))
            handler(message.data, sock.path(message.remote, message.local), message.ecn)

    def _remember(self, connection_id: bytes) -> None:
        if len(self._returned) >= FORWARD_RETURNED:
            self._returned.clear()
        self._returned[connection_id] = None

    def _meet(self, peers: _Peers, descriptors: list[int]) -> None:
        """Use the descriptors for a bank in place of the previous ones."""
        for slot in [slot for slot in self._outboxes if bank_of(slot) == peers.bank]:
            self._outboxes.pop(slot).close()
        for worker, fd in enumerate(descriptors):
            outbox = self._outboxes[slot_number(peers.bank, worker)] = socket.socket(fileno=fd)
            outbox.setblocking(False)
        self.active = peers.active
        if peers.addresses is not None:
            self._taken = peers.addresses
        self._look_back_until = self._clock() + FORWARD_LOOK_BACK

    def close(self) -> None:
        for sock in (self._inbox, *self._outboxes.values()):
            sock.close()
