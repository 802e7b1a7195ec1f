"""Steering of datagrams within an SO_REUSEPORT group by a classic BPF program.

The program reads the first byte of the destination connection ID, which workers set to their slot,
so datagrams reach the worker of their connection from any client address. It needs no privileges.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from quicedge.udp import kernel

_LD_ABS_BYTE = 0x30
_LD_LEN = 0x80
_JSET = 0x45
_JGE = 0x35
_JUMP_IF_EQUAL = 0x15
_ALU_MOD = 0x94
_RETURN_A = 0x16
_RETURN = 0x06
_INSTRUCTION = struct.Struct("=HBBI")

LONG_HEADER_CID_AT = 6
SHORT_HEADER_CID_AT = 1


def slot_for(datagram: bytes, workers: int) -> int:
    """The slot that a datagram belongs to, computed like the program; used by forwarding."""
    if not datagram:
        return 0
    at = LONG_HEADER_CID_AT if datagram[0] & 0x80 else SHORT_HEADER_CID_AT
    return datagram[at] % workers if len(datagram) > at else 0


def program(workers: int) -> bytes:
    """The instructions for a group of `workers` sockets; the program sees the UDP payload.

    A read past the end makes a classic BPF program return 0, hence the length checks.
    """
    instructions = (
        (_LD_LEN, 0, 0, 0),
        (_JGE, 0, 8, LONG_HEADER_CID_AT + 1),
        (_LD_ABS_BYTE, 0, 0, 0),
        (_JSET, 0, 3, 0x80),
        (_LD_ABS_BYTE, 0, 0, LONG_HEADER_CID_AT),
        (_ALU_MOD, 0, 0, workers),
        (_RETURN_A, 0, 0, 0),
        (_LD_ABS_BYTE, 0, 0, SHORT_HEADER_CID_AT),
        (_ALU_MOD, 0, 0, workers),
        (_RETURN_A, 0, 0, 0),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def attach(sock: socket.socket, *, workers: int, bank: int = 0) -> None:
    """Attach the program to the group of `sock`; raises OSError if the kernel cannot steer.

    The sockets of the group are numbered in the order in which they were bound.
    """
    if not kernel.IS_LINUX:
        raise OSError("steering by connection ID requires Linux")
    code = program(workers)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HL", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, kernel.SO_ATTACH_REUSEPORT_CBPF, filter_program)
