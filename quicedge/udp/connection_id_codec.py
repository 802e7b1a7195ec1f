"""Worker slots in connection IDs: encoding, decoding, and steering by the kernel.

A connection ID has a slot value (`udp.connection_id_layout`); modulo the number of slots it is the
slot of the worker that owns the connection. A classic BPF program on the SO_REUSEPORT group reads
it, so datagrams reach their worker from any client address. It needs no privileges.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from quicedge.udp import kernel
from quicedge.udp.connection_id_layout import (
    JUMP_EQUAL,
    JUMP_GE,
    JUMP_SET,
    LOAD_BYTE,
    LOAD_LENGTH,
    MODULO,
    PLAIN,
    RETURN,
    RETURN_A,
    ConnectionIdLayout,
    Instruction,
)

_INSTRUCTION = struct.Struct("=HBBI")

_LONG_HEADER_LENGTH_AT = 5
_LONG_HEADER_CID_AT = 6
_SHORT_HEADER_CID_AT = 1
_MAX_SLOTS = 128


class ConnectionIdCodec:
    """The codec for a number of slots."""

    def __init__(self, slots: int, layout: ConnectionIdLayout = PLAIN) -> None:
        if not 0 < slots <= _MAX_SLOTS:
            raise ValueError(f"{slots} is not a number of slots from 1 to {_MAX_SLOTS}")
        self._slots = slots
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
        if not 0 <= slot < self._slots:
            raise ValueError(f"slot {slot} is not one of {self._slots}")
        values = 256 // self._slots
        return self._layout.make(slot + random[0] % values * self._slots, random[1:])

    def slot_of(self, datagram: bytes) -> int:
        """The slot that a datagram belongs to, computed like the program."""
        if len(datagram) < self._min_datagram:
            return 0
        if not datagram[0] & 0x80:
            value = self._layout.value_at(datagram, _SHORT_HEADER_CID_AT)
        elif datagram[_LONG_HEADER_LENGTH_AT] == self._layout.length:
            value = self._layout.value_at(datagram, _LONG_HEADER_CID_AT)
        else:
            # Chosen by a client: all its first packets have this byte in common.
            value = datagram[_LONG_HEADER_CID_AT]
        return value % self._slots

    def program(self) -> bytes:
        """The instructions of the BPF program, which sees the UDP payload.

        A read past the end makes a classic BPF program return 0, hence the length check.
        """
        finish = Instruction(MODULO, k=self._slots), Instruction(RETURN_A)
        short = *self._layout.load(_SHORT_HEADER_CID_AT), *finish
        ours = *self._layout.load(_LONG_HEADER_CID_AT), *finish
        chosen = Instruction(LOAD_BYTE, k=_LONG_HEADER_CID_AT), *finish
        instructions = (
            Instruction(LOAD_LENGTH),
            Instruction(JUMP_GE, 1, 0, self._min_datagram),
            Instruction(RETURN, k=0),
            Instruction(LOAD_BYTE, k=0),
            Instruction(JUMP_SET, len(short), 0, 0x80),
            *short,
            Instruction(LOAD_BYTE, k=_LONG_HEADER_LENGTH_AT),
            Instruction(JUMP_EQUAL, 0, len(ours), self._layout.length),
            *ours,
            *chosen,
        )
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)

    def steer(self, sock: socket.socket) -> None:
        """Attach the program to the SO_REUSEPORT group of `sock`, which has one socket per slot.

        Sockets are numbered in the order they were bound. Raises OSError if the kernel cannot
        steer.
        """
        if not kernel.IS_LINUX:
            raise OSError("steering by connection ID needs Linux")
        code = self.program()
        buffer = ctypes.create_string_buffer(code, len(code))
        filter_program = struct.pack("HL", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, kernel.SO_ATTACH_REUSEPORT_CBPF, filter_program)
