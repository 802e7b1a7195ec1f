"""Stateless session tickets (RFC 8446 section 4.6.1): the ticket contains the session, encrypted.

All workers of a host share the keys, so a client can resume at any of them, also after a reload or
the death of a worker. Keys are derived from a secret that the supervisor generates at startup, or
the operator configures them for all hosts of a fleet; clients can then resume at any host.
"""

from __future__ import annotations

import msgspec

from quicedge.config.limits import FLEET_CLOCK_SKEW, TICKET_LIFETIME
from quicedge.quic.token_sealer import NONCE_LENGTH, FleetKeys, Sealer, TokenSealer


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What a resumed handshake needs from the previous one."""

    version: int
    """The QUIC version of the connection that issued the ticket (RFC 9369 section 5)."""
    cipher_suite: int
    resumption_secret: bytes
    server_name: str | None
    alpn: str | None
    age_add: int
    """Obfuscates the ticket age that the client sends in the clear."""
    issued_at: float
    """Seconds of the host's clock; in tickets of a fleet, of the wall clock."""
    early_data: bytes = b""
    """Identifies who accepts 0-RTT data with this ticket, and under which limits; empty: nobody."""


class Tickets:
    """Encrypts sessions as tickets and decrypts them. Times are seconds of the host's clock."""

    lifetime = TICKET_LIFETIME

    def __init__(self, secret: bytes, fleet: FleetKeys | None = None) -> None:
        """`secret` is this host's; the keys of a fleet, if any, replace it."""
        purpose = b"session ticket"
        self._fleet = fleet
        self._sealer: TokenSealer = (
            Sealer(secret, purpose=purpose, key_lifetime=TICKET_LIFETIME)
            if fleet is None
            else fleet.sealer(purpose)
        )
        self._decode = msgspec.msgpack.Decoder(Session).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def seal(self, session: Session, now: float) -> bytes:
        """The ticket of a session."""
        if self._fleet is not None:
            session = _shifted(session, self._fleet.wall_offset())
        return self._sealer.seal(self._encode(session), b"", now)

    def open(self, ticket: bytes, now: float) -> Session | None:
        """The session, or None if the ticket is not ours or expired."""
        plain = self._sealer.open(ticket, b"", now)
        if plain is None:
            return None
        try:
            session = self._decode(plain)
        except msgspec.DecodeError:
            # Sealed by another release under the same secret, in another format.
            return None
        earliest = 0.0
        if self._fleet is not None:
            session = _shifted(session, -self._fleet.wall_offset())
            earliest = -FLEET_CLOCK_SKEW
        return session if earliest <= now - session.issued_at <= self.lifetime else None


def _shifted(session: Session, seconds: float) -> Session:
    return msgspec.structs.replace(session, issued_at=session.issued_at + seconds)


def ticket_id(ticket: bytes) -> bytes:
    """A unique identifier of a ticket of ours: its nonce."""
    return ticket[1 : 1 + NONCE_LENGTH]
