"""0-RTT anti-replay: once per ticket, for a fresh ClientHello (RFC 8446 section 8)."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from quicedge.config.limits import (
    EARLY_DATA_AGE_TOLERANCE,
    EARLY_DATA_LIFETIME,
    EARLY_DATA_STRIKES,
)
from quicedge.quic.tickets import Session, ticket_id

REGISTER_LENGTH = 8
"""Length of a register's name, in bytes."""


class EarlyDataUse(NamedTuple):
    """A ticket that was used for early data."""

    register: bytes
    """Name of the register that must record the use."""
    ticket_id: bytes


class StrikeRegister:
    """Remembers used keys for at least `window` seconds, at most `capacity` per window.

    When full, it reports every key as used: lack of room never admits a replay.
    """

    def __init__(self, window: float, capacity: int) -> None:
        self._window = window
        self._capacity = capacity
        self._generation = 0
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()

    def strike(self, key: bytes, now: float) -> bool:
        """Record the use of `key`; False if it was, or may have been, used before."""
        generation = int(now // self._window)
        if generation != self._generation:
            self._previous = self._current if generation == self._generation + 1 else set()
            self._current = set()
            self._generation = generation
        if key in self._current or key in self._previous or len(self._current) >= self._capacity:
            return False
        self._current.add(key)
        return True


class EarlyDataGuard:
    """Decides about the early data of one worker process, with a register of its own.

    A ticket names the register responsible for it. The register of this process does not know what
    other workers, or one that died, have seen: early data is accepted only by the process that
    issued the ticket. A register of the whole fleet knows all uses, but must be asked before the
    data is processed (`Handshake.early_data_use`). Anyone else resumes the session without early
    data, which costs the client a round trip.
    """

    def __init__(self) -> None:
        self.process = os.urandom(REGISTER_LENGTH)
        """Name of this process's register."""
        self.register: bytes | None = self.process
        """The register that new tickets name; None if none is available."""
        self._register = StrikeRegister(EARLY_DATA_LIFETIME, EARLY_DATA_STRIKES)

    def stamp(self, terms: bytes) -> bytes:
        """The early data member of a ticket: the responsible register and the terms.

        `terms` represents the limits that the client remembers (RFC 9000 section 7.4.1, RFC 9114
        section 7.2.4.2); if they have changed, its early data is rejected.
        """
        if self.register is None:
            return b""
        return self.register + hashlib.sha256(terms).digest()[:8]

    def admit(
        self, session: Session, ticket: bytes, stated_age: float, stamp: bytes, now: float
    ) -> bool:
        """Whether to accept early data with the ticket; this uses the ticket up.

        `stated_age`: seconds since the client received the ticket, by its own clock. Call this only
        after the binder was verified.
        """
        age = now - session.issued_at
        return (
            bool(stamp)
            and session.early_data == stamp
            and age <= EARLY_DATA_LIFETIME
            # RFC 8446 section 8.3: the ticket age reveals a delayed ClientHello.
            and abs(age - stated_age) <= EARLY_DATA_AGE_TOLERANCE
            and self._register.strike(ticket_id(ticket), now)
        )


def stated_age(obfuscated: int, age_add: int) -> float:
    """Seconds, from the client's `obfuscated_ticket_age` (RFC 8446 section 4.2.11.1)."""
    return ((obfuscated - age_add) & 0xFFFFFFFF) / 1000
