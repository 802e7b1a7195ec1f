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
"""Bytes of a register's name."""


class EarlyDataUse(NamedTuple):
    """A ticket that was used for early data."""

    register: bytes
    """The name of the register that must know of it."""
    ticket_id: bytes


class StrikeRegister:
    """Remembers what was used for `window` seconds at least; at most `capacity` per window.

    When it is full, it takes nothing for unused: a replay never gets through for want of room.
    """

    def __init__(self, window: float, capacity: int) -> None:
        self._window = window
        self._capacity = capacity
        self._generation = 0
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()

    def strike(self, key: bytes, now: float) -> bool:
        """Use `key`; False when it was used before, or may have been."""
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
    """The judge of one worker process, with a register of its own.

    A ticket names the register that answers for it. That of this process knows nothing of what
    another worker, or the one that died, may have seen: only the process that issued a ticket
    takes early data under it. A register of the whole fleet knows of all, but has to be asked
    before the data is made use of (`early_data_use` of a connection). Everybody else resumes the
    session without early data, which costs the client a round trip.
    """

    def __init__(self) -> None:
        self.process = os.urandom(REGISTER_LENGTH)
        """The name of this process's own register."""
        self.register: bytes | None = self.process
        """The register that new tickets name; None: there is none just now."""
        self._register = StrikeRegister(EARLY_DATA_LIFETIME, EARLY_DATA_STRIKES)

    def stamp(self, terms: bytes) -> bytes:
        """What a ticket says about early data: who answers for it, and under which terms.

        `terms` stands for the limits that the client remembers (RFC 9000 section 7.4.1, RFC 9114
        section 7.2.4.2); under others, its early data is refused.
        """
        if self.register is None:
            return b""
        return self.register + hashlib.sha256(terms).digest()[:8]

    def admit(
        self, session: Session, ticket: bytes, stated_age: float, stamp: bytes, now: float
    ) -> bool:
        """Whether early data under the ticket is taken; it is used up then.

        `stated_age`: seconds since the client got the ticket, by its own clock. Call this only
        once the binder has shown that the client knows the session.
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
