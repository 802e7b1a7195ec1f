"""Connection IDs of one worker, and the stateless reset tokens that belong to them."""

from __future__ import annotations

import hashlib
import os

from quicedge.quic.hkdf import hmac_sha2
from quicedge.udp.connection_id_codec import ConnectionIdCodec
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout

STATELESS_RESET_TOKEN_LENGTH = 16


class ConnectionIdIssuer:
    """Issues the connection IDs of one worker, which lead to its slot.

    `secret` is shared by all workers, or by all hosts of a fleet: any of them can then reset a
    connection that its owner lost (RFC 9000 section 10.3.2), and nobody else can.
    """

    def __init__(
        self,
        *,
        slot: int = 0,
        secret: bytes,
        layout: ConnectionIdLayout = PLAIN,
    ) -> None:
        self._slot = slot
        self._codec = ConnectionIdCodec(layout)
        self.length = layout.length
        """Of every connection ID, in bytes."""
        self._reset_key = hashlib.sha256(b"quicedge stateless reset" + secret).digest()

    def new(self) -> bytes:
        """A fresh connection ID of `length` bytes."""
        return self._codec.make(self._slot, os.urandom(self._codec.entropy))

    def reset_token(self, connection_id: bytes) -> bytes:
        """The stateless reset token of a connection ID (RFC 9000 section 10.3.2)."""
        mac = hmac_sha2(len(self._reset_key), self._reset_key, connection_id)
        return mac[:STATELESS_RESET_TOKEN_LENGTH]
