"""Connection IDs that route, and the stateless reset tokens that belong to them."""

from __future__ import annotations

import hashlib
import hmac
import os

from quicedge.config.limits import CONNECTION_ID_LENGTH

STATELESS_RESET_TOKEN_LENGTH = 16


class ConnectionIds:
    """Issues the connection IDs of one worker.

    The first byte modulo `slots` is the worker's slot: the kernel steers datagrams by it
    (`udp.steering`), so a client that migrates stays with its worker. The other bytes are random.

    `secret` is shared by all workers: any of them can then reset a connection that its owner
    lost (RFC 9000 section 10.3.2), and nobody else can.
    """

    def __init__(self, *, slot: int = 0, slots: int = 1, secret: bytes) -> None:
        if not 0 <= slot < slots <= 128:
            raise ValueError(f"slot {slot} is not one of {slots}")
        self._steering_bytes = bytes(range(slot, 256 - 256 % slots, slots))
        self._reset_key = hashlib.sha256(b"quicedge stateless reset" + secret).digest()

    def new(self) -> bytes:
        """A fresh connection ID of `CONNECTION_ID_LENGTH` bytes."""
        random = os.urandom(CONNECTION_ID_LENGTH)
        steering = self._steering_bytes[random[0] % len(self._steering_bytes)]
        return bytes((steering,)) + random[1:]

    def reset_token(self, connection_id: bytes) -> bytes:
        """The stateless reset token of a connection ID (RFC 9000 section 10.3.2)."""
        mac = hmac.digest(self._reset_key, connection_id, "sha256")
        return mac[:STATELESS_RESET_TOKEN_LENGTH]
