"""Worker slots in connection IDs: encoding, decoding, and steering by the kernel.

The first byte of a connection ID modulo the number of slots is the slot of the worker that owns the
connection. A classic BPF program on the SO_REUSEPORT group reads it, so datagrams reach their
worker from any client address. It needs no privileges.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from quicedge.config.limits import CONNECTION_ID_LENGTH
from quicedge.udp import kernel

_LD_ABS_BYTE = 0x30
_LD_LEN = 0x80
_JSET = 0x45
_JGE = 0x35
_ALU_MOD = 0x94
_RETURN_A = 0x16
_RETURN = 0x06
_INSTRUCTION = struct.Struct("=HBBI")

_LONG_HEADER_CID_AT = 6
_SHORT_HEADER_CID_AT = 1
_MAX_SLOTS = 128


class ConnectionIdCodec:
    """The codec for a number of slots."""

    def __init__(self, slots: int) -> None:
        if not 0 < slots <= _MAX_SLOTS:
            raise ValueError(f"{slots} is not a number of slots from 1 to {_MAX_SLOTS}")
        self._slots = slots

    def make(self, slot: int, random: bytes) -> bytes:
        """A connection ID for `slot`, made of `CONNECTION_ID_LENGTH` random bytes."""
        if not 0 <= slot < self._slots:
            raise ValueError(f"slot {slot} is not one of {self._slots}")
        values = 256 // self._slots
        return bytes((slot + random[0] % values * self._slots,)) + random[1:CONNECTION_ID_LENGTH]

    def slot_of(self, datagram: bytes) -> int:
        """The slot that a datagram belongs to, computed like the program."""
        if len(datagram) <= _LONG_HEADER_CID_AT:
            return 0
        at = _LONG_HEADER_CID_AT if datagram[0] & 0x80 else _SHORT_HEADER_CID_AT
        return datagram[at] % self._slots

    def program(self) -> bytes:
        """The instructions of the BPF program, which sees the UDP payload.

        A read past the end makes a classic BPF program return 0, hence the length check.
        """
        instructions = (
            (_LD_LEN, 0, 0, 0),
            (_JGE, 0, 8, _LONG_HEADER_CID_AT + 1),
            (_LD_ABS_BYTE, 0, 0, 0),
            (_JSET, 0, 3, 0x80),
            (_LD_ABS_BYTE, 0, 0, _LONG_HEADER_CID_AT),
            (_ALU_MOD, 0, 0, self._slots),
            (_RETURN_A, 0, 0, 0),
            (_LD_ABS_BYTE, 0, 0, _SHORT_HEADER_CID_AT),
            (_ALU_MOD, 0, 0, self._slots),
            (_RETURN_A, 0, 0, 0),
            (_RETURN, 0, 0, 0),
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
