"""Where in a connection ID the slot of its worker is, for Python and for a classic BPF program.

A layout turns a slot value, one byte whose remainder is the slot, into a connection ID and back.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from quicedge.config.limits import CONNECTION_ID_LENGTH
from quicedge.udp.quic_lb import QuicLb


class Instruction(NamedTuple):
    """Of classic BPF (linux/filter.h)."""

    code: int
    jump_true: int = 0
    jump_false: int = 0
    k: int = 0


LOAD_BYTE, LOAD_WORD, LOAD_LENGTH = 0x30, 0x20, 0x80
JUMP, JUMP_SET, JUMP_GE, JUMP_GREATER, JUMP_EQUAL = 0x05, 0x45, 0x35, 0x25, 0x15
ADD, AND = 0x04, 0x54
MODULO, MULTIPLY, SHIFT_RIGHT, XOR, XOR_X, TO_X = 0x94, 0x24, 0x74, 0xA4, 0xAC, 0x07
RETURN, RETURN_A = 0x06, 0x16


class ConnectionIdLayout(Protocol):
    """How long connection IDs are, and where their slot value is."""

    length: int
    entropy: int
    """Random bytes that an ID is made of, beside those of its slot value."""

    def make(self, value: int, random: bytes) -> bytes:
        """A connection ID with a slot value."""

    def value_at(self, datagram: bytes, at: int) -> int:
        """The slot value of the connection ID that begins at `at`."""

    def load(self, at: int) -> tuple[Instruction, ...]:
        """The same in BPF: leaves the value in the accumulator."""


class PlainLayout:
    """A slot value and seven random bytes."""

    length = CONNECTION_ID_LENGTH
    entropy = CONNECTION_ID_LENGTH - 1

    def make(self, value: int, random: bytes) -> bytes:
        return bytes((value,)) + random[: self.entropy]

    def value_at(self, datagram: bytes, at: int) -> int:
        return datagram[at]

    def load(self, at: int) -> tuple[Instruction, ...]:
        return (Instruction(LOAD_BYTE, k=at),)


class QuicLbLayout:
    """What load balancers read (`udp.quic_lb`), then the slot value.

    The draft wants nothing in an ID that links it to others of its server. The value is therefore
    XORed with a byte derived from the four bytes before it, which are encrypted or random, and from
    `secret`. A multiplication is what classic BPF has in place of a cipher.
    """

    def __init__(self, lb: QuicLb, server_id: bytes, secret: bytes) -> None:
        self.length = 1 + lb.block_length + 1
        self.entropy = lb.nonce_length
        self._lb = lb
        self._server_id = server_id
        self._addend = int.from_bytes(secret[:4], "big")
        # Odd, so that no bit of the word is lost.
        self._factor = int.from_bytes(secret[4:8], "big") | 1

    def use(self, lb: QuicLb, server_id: bytes) -> None:
        """Make IDs of another configuration, of the same length."""
        if 1 + lb.block_length + 1 != self.length:
            raise ValueError("another length of connection IDs requires a restart")
        self._lb, self._server_id, self.entropy = lb, server_id, lb.nonce_length

    def make(self, value: int, random: bytes) -> bytes:
        start = self._lb.encode(self._server_id, random[: self.entropy], extra=1)
        return start + bytes((value ^ self._mask(start[-4:]),))

    def _mask(self, word: bytes) -> int:
        mixed = (int.from_bytes(word, "big") ^ self._addend) * self._factor
        return mixed >> 24 & 0xFF

    def value_at(self, datagram: bytes, at: int) -> int:
        last = at + self.length - 1
        return datagram[last] ^ self._mask(datagram[last - 4 : last])

    def load(self, at: int) -> tuple[Instruction, ...]:
        last = at + self.length - 1
        return (
            Instruction(LOAD_WORD, k=last - 4),
            Instruction(XOR, k=self._addend),
            Instruction(MULTIPLY, k=self._factor),
            Instruction(SHIFT_RIGHT, k=24),
            Instruction(TO_X),
            Instruction(LOAD_BYTE, k=last),
            Instruction(XOR_X),
        )


PLAIN = PlainLayout()
