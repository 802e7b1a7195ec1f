"""Session tickets (RFC 8446 section 4.6.1) that keep the session themselves, sealed.

No worker remembers a session: the ticket carries it, under keys that all workers of the host
share, so a client resumes at any of them, also after a reload or a worker's death. The keys
follow from a secret that the supervisor draws when it starts and that never leaves its host,
or the operator gives them to all hosts of a fleet; clients then resume at any host.
"""

from __future__ import annotations

import msgspec

from quicedge.config.limits import FLEET_CLOCK_SKEW, TICKET_LIFETIME
from quicedge.quic.token_sealer import NONCE_LENGTH, Fleet, Sealer, Sealing


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What a resumed handshake needs of the one before it."""

    version: int
    """The QUIC version of the connection that issued the ticket (RFC 9369 section 5)."""
    cipher_suite: int
    resumption_secret: bytes
    server_name: str | None
    alpn: str | None
    age_add: int
    """Added to the age that the client states, so that it tells nothing to onlookers."""
    issued_at: float
    """Seconds of the host's clock; in the tickets of a fleet, of the wall clock."""
    early_data: bytes = b""
    """Who takes 0-RTT data under this ticket and under which limits; empty: nobody does."""


class Tickets:
    """Seals sessions into tickets and opens them. Times are seconds of the host's clock."""

    lifetime = TICKET_LIFETIME

    def __init__(self, secret: bytes, fleet: Fleet | None = None) -> None:
        """`secret` is this host's; a fleet's keys take its place."""
        purpose = b"session ticket"
        self._fleet = fleet
        self._sealer: Sealing = (
            Sealer(secret, purpose=purpose, key_lifetime=TICKET_LIFETIME)
            if fleet is None
            else fleet.sealing(purpose)
        )
        self._decode = msgspec.msgpack.Decoder(Session).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def seal(self, session: Session, now: float) -> bytes:
        """The ticket that stands for a session."""
        if self._fleet is not None:
            session = _shifted(session, self._fleet.wall_offset())
        return self._sealer.seal(self._encode(session), b"", now)

    def open(self, ticket: bytes, now: float) -> Session | None:
        """The session, or None when the ticket is not ours or too old."""
        plain = self._sealer.open(ticket, b"", now)
        if plain is None:
            return None
        try:
            session = self._decode(plain)
        except msgspec.DecodeError:
            # Another release of ours sealed it: its secret outlived it, its form did not.
            return None
        earliest = 0.0
        if self._fleet is not None:
            session = _shifted(session, -self._fleet.wall_offset())
            earliest = -FLEET_CLOCK_SKEW
        return session if earliest <= now - session.issued_at <= self.lifetime else None


def _shifted(session: Session, seconds: float) -> Session:
    return msgspec.structs.replace(session, issued_at=session.issued_at + seconds)


def ticket_id(ticket: bytes) -> bytes:
    """What tells a ticket of ours from all others: its nonce."""
    return ticket[1 : 1 + NONCE_LENGTH]
