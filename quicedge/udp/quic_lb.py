"""Server IDs in connection IDs (draft-ietf-quic-load-balancers-21).

    first octet: 3 bits of config rotation, 5 bits of length (that of what follows)
    server ID and nonce: in the clear; or one AES block if they are 16 octets; or else encrypted by
    a Feistel network of four rounds of AES

What follows the nonce is the server's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MIN_NONCE = 4
MAX_BLOCK = 19
"""Octets of server ID and nonce: QUIC version 1 has connection IDs of at most 20."""
UNROUTABLE = 0b111
"""The config rotation that no configuration has (section 3.2)."""
KEY_LENGTH = 16


class QuicLb:
    """One configuration: encodes server IDs, and decodes those of the other servers that share it.

    Without a key, server IDs are readable by everyone.
    """

    def __init__(
        self, rotation: int, server_id_length: int, nonce_length: int, key: bytes | None = None
    ) -> None:
        size = server_id_length + nonce_length
        if not 0 <= rotation < UNROUTABLE:
            raise ValueError(f"config rotation {rotation} is not from 0 to {UNROUTABLE - 1}")
        if server_id_length < 1 or nonce_length < MIN_NONCE or size > MAX_BLOCK:
            raise ValueError(f"server ID of {server_id_length}, nonce of {nonce_length} octets")
        self.rotation = rotation
        self.server_id_length = server_id_length
        self.nonce_length = nonce_length
        self.block_length = size
        self._half = (size + 1) // 2
        self._shift = 8 * (size - self._half)
        odd = 4 * (size % 2)
        # An odd middle octet belongs to both halves, four bits each.
        self._left_mask = (1 << 8 * self._half) - (1 << odd)
        self._right_mask = (1 << 8 * self._half - odd) - 1
        self._is_plain = key is None
        if key is not None:
            cipher = Cipher(algorithms.AES(key), modes.ECB())
            self._encrypt = cipher.encryptor().update
            self._decrypt = cipher.decryptor().update

    def encode(self, server_id: bytes, nonce: bytes, extra: int = 0) -> bytes:
        """The beginning of a connection ID that `extra` octets follow."""
        block = server_id + nonce
        if len(server_id) != self.server_id_length or len(nonce) != self.nonce_length:
            raise ValueError("server ID or nonce of another length than the configuration's")
        if not self._is_plain:
            if self.block_length == KEY_LENGTH:
                block = self._encrypt(block)
            else:
                block = self._encrypt_halves(block)
        return bytes((self.rotation << 5 | self.block_length + extra,)) + block

    def decode(self, connection_id: bytes) -> bytes:
        """The server ID; that of an ID of another configuration is meaningless."""
        block = connection_id[1 : 1 + self.block_length]
        if not self._is_plain:
            if self.block_length == KEY_LENGTH:
                block = self._decrypt(block)
            else:
                block = self._decrypt_halves(block)
        return block[: self.server_id_length]

    # --- four passes ----------------------------------------------------------------------------

    def _split(self, block: bytes) -> tuple[int, int]:
        half = self._half
        left, right = int.from_bytes(block[:half], "big"), int.from_bytes(block[-half:], "big")
        return left & self._left_mask, right & self._right_mask

    def _join(self, left: int, right: int) -> bytes:
        return (left << self._shift | right).to_bytes(self.block_length, "big")

    def _pass(self, number: int, half: int) -> int:
        """One round: what the other half is combined with."""
        expanded = half << 8 * (16 - self._half) | self.block_length << 8 | number
        out = self._encrypt(expanded.to_bytes(16, "big"))
        return int.from_bytes(out[: self._half], "big")

    def _encrypt_halves(self, block: bytes) -> bytes:
        left, right = self._split(block)
        right = (right ^ self._pass(1, left)) & self._right_mask
        left = (left ^ self._pass(2, right)) & self._left_mask
        right = (right ^ self._pass(3, left)) & self._right_mask
        left = (left ^ self._pass(4, right)) & self._left_mask
        return self._join(left, right)

    def _decrypt_halves(self, block: bytes) -> bytes:
        left, right = self._split(block)
        left = (left ^ self._pass(4, right)) & self._left_mask
        right = (right ^ self._pass(3, left)) & self._right_mask
        left = (left ^ self._pass(2, right)) & self._left_mask
        if self.server_id_length > self.block_length // 2:
            # The server ID reaches into the right half.
            right = (right ^ self._pass(1, left)) & self._right_mask
        return self._join(left, right)


class ServerIds:
    """The server IDs of a fleet's connection IDs, which all have the same length."""

    def __init__(self, length: int, configurations: Iterable[QuicLb]) -> None:
        self.length = length
        """Of a connection ID."""
        self._by_rotation: dict[int, QuicLb] = {}
        self.add(configurations)

    def add(self, configurations: Iterable[QuicLb]) -> None:
        """Decode these as well; of two with the same rotation, the new one."""
        for lb in configurations:
            self._by_rotation[lb.rotation] = lb

    def of(self, datagram: bytes, at: int, length: int) -> bytes | None:
        """The server ID in the connection ID of `length` bytes at `at`; None if there is none."""
        end = at + self.length
        if length != self.length or len(datagram) < end:
            return None
        first = datagram[at]
        lb = self._by_rotation.get(first >> 5)
        if lb is None or first & 0x1F != length - 1:
            return None
        return lb.decode(datagram[at:end])
