"""Keys of TLS session tickets on TCP, the same in all workers of a host or hosts of a fleet.

They are derived from the secrets that QUIC's tickets are sealed with, and rotate with those: a key
of the host seals for TICKET_LIFETIME and opens for as long again; of a fleet's keys, which the
operator rotates, the first one seals and all open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from quicedge.config.limits import TICKET_LIFETIME

NAME_SIZE = 16
_PURPOSE = b"TLS ticket on TCP"


class TicketKey(NamedTuple):
    """One key as OpenSSL uses it: AES-256-CBC, then HMAC-SHA256."""

    name: bytes
    """Identifies it in a ticket."""
    cipher: bytes
    mac: bytes

    def __repr__(self) -> str:
        return f"<key {self.name.hex()}>"  # no key may reach a log


class TicketKeys(Protocol):
    """Which keys are in use now."""

    def sealing(self) -> TicketKey:
        """The key for new tickets."""

    def opening(self, name: bytes) -> TicketKey | None:
        """The key of a client's ticket; None: unknown or expired."""

    def older(self) -> Sequence[bytes]:
        """Names of the keys that open and do not seal."""


def _derive(material: bytes) -> TicketKey:
    digest = hashlib.shake_256(material).digest(NAME_SIZE + 64)
    return TicketKey(digest[:NAME_SIZE], digest[NAME_SIZE:-32], digest[-32:])


class HostKeys:
    """`TicketKeys` of this host, by time; `clock` is the same in all workers."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._material = b"quicedge " + _PURPOSE + b"\0" + secret
        self._clock = clock
        self._epoch = -1
        self._current: TicketKey
        self._former: TicketKey
        self._older: tuple[bytes, ...]
        self._turn()

    def _turn(self) -> None:
        epoch = int(self._clock() // TICKET_LIFETIME)
        if epoch != self._epoch:
            self._epoch = epoch
            self._current = self._of(epoch)
            self._former = self._of(epoch - 1)
            self._older = (self._former.name,)

    def _of(self, epoch: int) -> TicketKey:
        return _derive(self._material + epoch.to_bytes(8, "big", signed=True))

    def sealing(self) -> TicketKey:
        self._turn()
        return self._current

    def opening(self, name: bytes) -> TicketKey | None:
        self._turn()
        if name == self._current.name:
            return self._current
        return self._former if name == self._former.name else None

    def older(self) -> Sequence[bytes]:
        return self._older


class FleetTicketKeys:
    """`TicketKeys` that the operator configures and rotates."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        made = [_derive(b"quicedge fleet " + _PURPOSE + b"\0" + key) for key in keys]
        self._sealing = made[0]
        self._by_name = {key.name: key for key in made}
        self._older = [key.name for key in made[1:]]

    def sealing(self) -> TicketKey:
        return self._sealing

    def opening(self, name: bytes) -> TicketKey | None:
        return self._by_name.get(name)

    def older(self) -> Sequence[bytes]:
        return self._older
