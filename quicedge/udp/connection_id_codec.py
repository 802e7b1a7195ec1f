"""Worker slots in connection IDs: encoding, decoding, and steering by the kernel.

A connection ID has a slot value (`udp.connection_id_layout`), whose remainder is the slot of the
worker that owns the connection: its bank, one of two generations of workers, and its number in it.
A classic BPF program on the SO_REUSEPORT group reads it, so datagrams reach their worker from any
client address, and newcomers reach the active bank. It needs no privileges.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from quicedge.config.limits import MAX_WORKERS
from quicedge.udp import kernel
from quicedge.udp.connection_id_layout import (
    ADD,
    AND,
    JUMP,
    JUMP_EQUAL,
    JUMP_GE,
    JUMP_GREATER,
    JUMP_SET,
    LOAD_BYTE,
    LOAD_LENGTH,
    LOAD_WORD,
    MODULO,
    PLAIN,
    RETURN,
    RETURN_A,
    ConnectionIdLayout,
    Instruction,
)

BANKS = 2
SLOTS = BANKS * MAX_WORKERS
"""The same for every number of workers: generations of different sizes live side by side."""

_INSTRUCTION = struct.Struct("=HBBI")

_VERSION_AT = 1
_LONG_HEADER_LENGTH_AT = 5
_LONG_HEADER_CID_AT = 6
_SHORT_HEADER_CID_AT = 1

_LONG = 0x80
_TYPE = 0x30
_VERSION_2 = 0x6B3343CF
_HANDSHAKE, _HANDSHAKE_V2 = 0x20, 0x30
"""RFC 9000 section 17.2 and RFC 9369 section 3.2."""


def slot_number(bank: int, worker: int) -> int:
    """The slot of a worker: 0 to `SLOTS - 1`."""
    return bank * MAX_WORKERS + worker


def bank_of(slot: int) -> int:
    """The bank that a slot is in."""
    return slot // MAX_WORKERS


class Routes(NamedTuple):
    """Which socket of a SO_REUSEPORT group each slot has, by its number in the group."""

    active: int
    """The bank that takes new connections."""
    sockets: Mapping[int, int]
    """By slot, of the workers that live; the active bank has its workers from 0 on."""

    @property
    def newcomers(self) -> int:
        """The number of workers that take new connections."""
        return sum(bank_of(slot) == self.active for slot in self.sockets)


class ConnectionIdCodec:
    """The codec of one layout."""

    def __init__(self, layout: ConnectionIdLayout = PLAIN) -> None:
        self._layout = layout
        self._min_datagram = _LONG_HEADER_CID_AT + layout.length

    @property
    def length(self) -> int:
        """Of the connection IDs, in bytes."""
        return self._layout.length

    @property
    def entropy(self) -> int:
        """Random bytes that `make` needs."""
        return 1 + self._layout.entropy

    def make(self, slot: int, random: bytes) -> bytes:
        """A connection ID for `slot`, made of `entropy` random bytes."""
        if not 0 <= slot < SLOTS:
            raise ValueError(f"slot {slot} is not one of {SLOTS}")
        return self._layout.make(slot + random[0] % (256 // SLOTS) * SLOTS, random[1:])

    def slot_of(self, datagram: bytes) -> int | None:
        """The slot in the connection ID of a datagram; None when there is none of ours."""
        if len(datagram) < self._min_datagram:
            return None
        if not datagram[0] & _LONG:
            return self._layout.value_at(datagram, _SHORT_HEADER_CID_AT) % SLOTS
        if datagram[_LONG_HEADER_LENGTH_AT] != self._layout.length:
            return None
        return self._layout.value_at(datagram, _LONG_HEADER_CID_AT) % SLOTS

    def id_of(self, datagram: bytes) -> bytes:
        """The destination connection ID of a long header packet."""
        end = _LONG_HEADER_CID_AT + datagram[_LONG_HEADER_LENGTH_AT]
        return datagram[_LONG_HEADER_CID_AT:end]

    def newcomer_of(self, datagram: bytes, workers: int) -> int:
        """The worker that a client's first packets go to, all to the same: 0 to `workers - 1`."""
        if len(datagram) <= _LONG_HEADER_CID_AT:
            return 0
        return datagram[_LONG_HEADER_CID_AT] % workers

    def route(self, datagram: bytes, routes: Routes) -> int:
        """The slot that a datagram is steered to, computed like the program."""
        slot = self.slot_of(datagram)
        if (
            slot is not None
            and slot in routes.sockets
            and (bank_of(slot) == routes.active or is_settled(datagram))
        ):
            return slot
        if len(datagram) < self._min_datagram:
            return slot_number(routes.active, 0)
        worker = datagram[_LONG_HEADER_CID_AT] % routes.newcomers
        return slot_number(routes.active, worker)

    def program(self, routes: Routes) -> bytes:
        """The instructions of the BPF program, which sees the UDP payload.

        A read past the end makes a classic BPF program return 0, hence the length check.
        """
        layout = self._layout
        active = {s: at for s, at in routes.sockets.items() if bank_of(s) == routes.active}
        first = slot_number(routes.active, 0)
        newcomer = (
            Instruction(LOAD_BYTE, k=_LONG_HEADER_CID_AT),
            Instruction(MODULO, k=len(active)),
            Instruction(ADD, k=first),
            *_lookup(active),
            Instruction(RETURN, k=active[first]),
        )
        remainder = Instruction(MODULO, k=SLOTS)
        short = (
            *layout.load(_SHORT_HEADER_CID_AT),
            remainder,
            *_lookup(routes.sockets),
            *newcomer,
        )
        settled = (
            *layout.load(_LONG_HEADER_CID_AT),
            remainder,
            *_lookup(routes.sockets),
            *newcomer,
        )
        first_packets = (
            *layout.load(_LONG_HEADER_CID_AT),
            remainder,
            *_lookup(active),
            *newcomer,
        )
        # Which type is that of Handshake packets depends on the version.
        is_handshake = (
            Instruction(LOAD_WORD, k=_VERSION_AT),
            Instruction(JUMP_EQUAL, 0, 3, _VERSION_2),
            Instruction(LOAD_BYTE, k=0),
            Instruction(AND, k=_TYPE),
            Instruction(JUMP_EQUAL, 4, 3, _HANDSHAKE_V2),
            Instruction(LOAD_BYTE, k=0),
            Instruction(AND, k=_TYPE),
            Instruction(JUMP_EQUAL, 1, 0, _HANDSHAKE),
            Instruction(JUMP, k=len(settled)),
        )
        instructions = (
            Instruction(LOAD_LENGTH),
            Instruction(JUMP_GE, 1, 0, self._min_datagram),
            Instruction(RETURN, k=active[first]),
            Instruction(LOAD_BYTE, k=0),
            Instruction(JUMP_SET, 0, 1, _LONG),
            Instruction(JUMP, k=len(short)),
            *short,
            Instruction(LOAD_BYTE, k=_LONG_HEADER_LENGTH_AT),
            Instruction(JUMP_EQUAL, 0, 1, layout.length),
            Instruction(JUMP, k=len(newcomer)),
            *newcomer,
            *is_handshake,
            *settled,
            *first_packets,
        )
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)

    def steer(self, sock: socket.socket, routes: Routes) -> None:
        """Attach the program to the SO_REUSEPORT group of `sock`, in place of the previous one.

        Sockets are numbered in the order they were bound. Raises OSError if the kernel cannot
        steer.
        """
        if not kernel.IS_LINUX:
            raise OSError("steering by connection ID needs Linux")
        code = self.program(routes)
        buffer = ctypes.create_string_buffer(code, len(code))
        filter_program = struct.pack("HL", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, kernel.SO_ATTACH_REUSEPORT_CBPF, filter_program)


def is_settled(datagram: bytes) -> bool:
    """Whether a client sends such a packet only to a worker that has answered it: a short header
    or a Handshake packet."""
    if not datagram[0] & _LONG:
        return True
    version = int.from_bytes(datagram[_VERSION_AT : _VERSION_AT + 4], "big")
    handshake = _HANDSHAKE_V2 if version == _VERSION_2 else _HANDSHAKE
    return datagram[0] & _TYPE == handshake


def _lookup(sockets: Mapping[int, int]) -> Iterator[Instruction]:
    """Returns the socket of the slot in the accumulator, or goes on with the slot unchanged."""
    for start, length, socket_number in _runs(sockets):
        yield Instruction(JUMP_GE, 0, 3, start)
        yield Instruction(JUMP_GREATER, 2, 0, start + length - 1)
        yield Instruction(ADD, k=(socket_number - start) % (1 << 32))
        yield Instruction(RETURN_A)


def _runs(sockets: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """Runs of consecutive slots with consecutive sockets: the first slot, how many, its socket."""
    run: tuple[int, int, int] | None = None
    for slot, number in sorted(sockets.items()):
        if run is not None and (slot, number) == (run[0] + run[1], run[2] + run[1]):
            run = run[0], run[1] + 1, run[2]
            continue
        if run is not None:
            yield run
        run = slot, 1, number
    if run is not None:
        yield run
