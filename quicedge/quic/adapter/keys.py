"""Packet protection keys across time: packets that come before them, and after their update."""

from __future__ import annotations

from aioquic._crypto import AEAD
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import decode_packet_number

_NO_PACKET = 1 << 62
"""Above every packet number (RFC 9000 section 12.3)."""


class PacketKeys(CryptoPair):
    """aioquic's keys of one epoch, which remember the key phase before an update.

    aioquic makes some of them; they become these by class assignment, so what an instance adds
    stands as a default on the class.
    """

    missed = False
    """A packet came when there were no keys to open it."""
    previous: AEAD | None = None
    """Opens packets of the key phase before (RFC 9001 section 6.5)."""
    phase_start = 0
    """Lowest packet number received in this key phase, above all numbers until there is one."""
    _previous_until: float | None = None

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        recv = self.recv
        if recv.hp is None:
            self.missed = True
        elif self.previous is not None:
            header, truncated = recv.hp.remove(packet, encrypted_offset)
            number = decode_packet_number(
                truncated, 8 * ((header[0] & 0x03) + 1), expected_packet_number
            )
            if self.is_of_previous_phase(header[0], number):
                return header, self.previous.decrypt(packet[len(header) :], header, number), number
        header, payload, number = super().decrypt_packet(
            packet, encrypted_offset, expected_packet_number
        )
        self.note_opened(number)
        return header, payload, number

    def is_of_previous_phase(self, first_byte: int, number: int) -> bool:
        """Whether the previous keys are those of a 1-RTT packet; its first byte is unprotected.

        The bit of the phase before is that of the next one too, so the number decides.
        """
        return (
            self.previous is not None
            and (first_byte >> 2) & 1 != self.recv.key_phase
            and number < self.phase_start
        )

    def note_opened(self, number: int) -> None:
        """A packet of this key phase was authentic."""
        if number < self.phase_start:
            self.phase_start = number

    def expire_previous(self, now: float, lifetime: float) -> None:
        """Let go of the previous keys `lifetime` seconds after the first packet under new ones."""
        if self.previous is None or self.phase_start == _NO_PACKET:
            return
        if self._previous_until is None:
            self._previous_until = now + lifetime
        elif now >= self._previous_until:
            self.previous = self._previous_until = None

    def _update_key(self, trigger: str) -> None:
        self.previous = self.recv.aead
        self.phase_start = _NO_PACKET
        self._previous_until = None
        super()._update_key(trigger)
