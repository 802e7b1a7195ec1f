"""The server's preferred address (RFC 9000 sections 9.6 and 18.2)."""

from __future__ import annotations

import socket
from typing import NamedTuple


class PreferredAddress(NamedTuple):
    """Where a client should go once the handshake is confirmed: host and port, by family."""

    ipv4: tuple[str, int] | None = None
    ipv6: tuple[str, int] | None = None

    def encode(self, connection_id: bytes, reset_token: bytes) -> bytes:
        """The parameter's value; `connection_id` has the sequence number 1."""
        parts = []
        for family, empty, address in (
            (socket.AF_INET, bytes(6), self.ipv4),
            (socket.AF_INET6, bytes(18), self.ipv6),
        ):
            if address is None:
                parts.append(empty)
            else:
                parts.append(socket.inet_pton(family, address[0]) + address[1].to_bytes(2, "big"))
        parts += bytes((len(connection_id),)), connection_id, reset_token
        return b"".join(parts)
