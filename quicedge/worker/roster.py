"""The clients of a worker, in shared memory that outlives it.

A client that only waits for a download sends nothing, so a stateless reset in response to a packet
never reaches it: when its worker dies, it would hang until its idle timeout. Each worker therefore
records the addresses and connection IDs of its clients in memory shared with the supervisor, which
sends them unsolicited resets.

A worker may die at any moment: a row is written completely before it is marked as valid, and the
reader validates everything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # The supervisor, which only reads rosters, needs neither.
    from quicedge.quic.connection import Connection
    from quicedge.udp.socket import FourTuple, Sender, UdpSocket

_HEAD = struct.Struct("=I")
"""Number of rows ever used."""
_ROW = struct.Struct("=BBHHB3xI16s20s20s")
"""IP version or 0 for none, length of the local address, listener, port, length of the connection
ID, IPv6 scope, host, local address (a pktinfo message), connection ID."""
_FREE = 0


def roster_size(rows: int) -> int:
    """Size in bytes of a roster with `rows` rows."""
    return _HEAD.size + rows * _ROW.size


class Client(NamedTuple):
    """Address of a client and the connection ID that it uses."""

    listener: int
    """Index of the worker's socket."""
    remote: tuple[Any, ...]
    local: bytes
    connection_id: bytes

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if len(self.remote) == 2 else socket.AF_INET6


class Roster:
    """The clients of this worker (`quic.endpoint.Roster`)."""

    def __init__(self, memory: mmap, sockets: Sequence[UdpSocket]) -> None:
        self._memory = memory
        self._listeners: dict[Sender, int] = {sock: at for at, sock in enumerate(sockets)}
        self._rows = (len(memory) - _HEAD.size) // _ROW.size
        self._used = 0
        self._free: list[int] = []
        self._entries: dict[Connection, tuple[int, Any, bytes]] = {}

    def put(self, connection: Connection) -> None:
        """Record the connection's current path and connection ID.

        Called after every event of the connection, and cheap when neither has changed. Connections
        beyond the number of rows, and those whose client another host of the fleet relays, are not
        recorded: their clients are reset when they next send.
        """
        path: Any = connection.paths.address
        cid = connection.local_ids.latest_used
        entry = self._entries.get(connection)
        if entry is None:
            if path.socket not in self._listeners:
                return
            row = self._take_row()
            if row is None:
                return
        elif entry[1] is path and entry[2] is cid:
            return
        elif path.socket not in self._listeners:
            self.remove(connection)
            return
        else:
            row = entry[0]
        self._entries[connection] = row, path, cid
        self._write(row, path, cid)

    def remove(self, connection: Connection) -> None:
        """The connection has ended."""
        entry = self._entries.pop(connection, None)
        if entry is not None:
            self._memory[_HEAD.size + entry[0] * _ROW.size] = _FREE
            self._free.append(entry[0])

    def _take_row(self) -> int | None:
        if self._free:
            return self._free.pop()
        if self._used == self._rows:
            return None
        self._used += 1
        return self._used - 1

    def _write(self, row: int, path: FourTuple, cid: bytes) -> None:
        host, port, *rest = path.remote
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        packed = _ROW.pack(
            6 if family == socket.AF_INET6 else 4,
            len(path.local),
            self._listeners[path.socket],
            port,
            len(cid),
            rest[1] if len(rest) > 1 else 0,
            socket.inet_pton(family, host.partition("%")[0]),
            path.local,
            cid,
        )
        at = _HEAD.size + row * _ROW.size
        # The first byte is written last: it marks the row as valid.
        self._memory[at] = _FREE
        self._memory[at + 1 : at + _ROW.size] = packed[1:]
        self._memory[at] = packed[0]
        _HEAD.pack_into(self._memory, 0, self._used)


def read_roster(memory: bytes) -> Iterator[Client]:
    """The clients in the roster of a dead worker; invalid rows are skipped."""
    (used,) = _HEAD.unpack_from(memory)
    rows = min(used, (len(memory) - _HEAD.size) // _ROW.size)
    for row in range(rows):
        version, local_length, listener, port, cid_length, scope, host, local, cid = (
            _ROW.unpack_from(memory, _HEAD.size + row * _ROW.size)
        )
        if version == 4:
            remote: tuple[Any, ...] = socket.inet_ntop(socket.AF_INET, host[:4]), port
        elif version == 6:
            remote = socket.inet_ntop(socket.AF_INET6, host), port, 0, scope
        else:
            continue
        yield Client(listener, remote, local[:local_length], cid[:cid_length])
