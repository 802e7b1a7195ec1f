"""1-RTT keys and key updates (RFC 9001 section 6).

Read keys exist for three phases: the current one, the next (a packet under it is an update by the
peer) and, for a limited time, the previous one (for reordered packets).
"""

from __future__ import annotations

from math import inf

from quicedge.config.limits import KEY_UPDATE_PACKETS, MAX_SEALED_PACKETS, OLD_KEYS_PTOS
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import FrameType
from quicedge.quic.packet_cipher import Opened
from quicedge.quic.protection import PacketKeys


class KeyPhases:
    """The 1-RTT keys of both directions, None until TLS provides them.

    Call `update` when `wants_update`. Before sealing call `prepare_send`, then use `send`. Open
    packets of the current phase with `recv`, others with `open_other`, and report packets of the
    current phase to `note_received`.
    """

    __slots__ = (
        "_acked_in_phase",
        "_first_sent",
        "_next",
        "_previous",
        "_previous_until",
        "failures",
        "first_received",
        "phase",
        "recv",
        "requested",
        "sealed",
        "send",
        "updates",
    )  # fmt: skip

    def __init__(self) -> None:
        self.send: PacketKeys | None = None
        self.recv: PacketKeys | None = None
        self.phase = 0
        self.requested = False
        """Whether to initiate an update as soon as permitted."""
        self.updates = 0
        """Key updates initiated by either side."""
        self.sealed = 0
        """Packets sealed with the current keys."""
        self.failures = 0
        """Packets that failed authentication, in all phases."""
        self._next: PacketKeys | None = None
        self._previous: PacketKeys | None = None
        self._previous_until = 0.0
        self.first_received: int | None = None
        """Lowest packet number received in this phase."""
        self._first_sent: int | None = None
        """First packet number sent in this phase."""
        self._acked_in_phase = False

    # --- sending --------------------------------------------------------------------------------

    @property
    def wants_update(self) -> bool:
        """Whether `update` has something to do."""
        return self.requested or self.sealed > KEY_UPDATE_PACKETS

    def update(self, now: float) -> None:
        """Update the keys if permitted; call it once the handshake is confirmed, before sealing.

        Raises TransportError when the keys are worn out and the peer never let us update them.
        """
        # RFC 9001 section 6.1: MUST NOT initiate a subsequent update before a packet of the current
        # phase is acknowledged; section 6.5: SHOULD wait until the peer has discarded the keys
        # before the last one.
        if self.updates == 0 or (self._acked_in_phase and now >= self._previous_until):
            self._rotate()
            self.first_received = None
            self._previous_until = inf
        elif self.sealed > MAX_SEALED_PACKETS:
            raise TransportError(
                ErrorCode.AEAD_LIMIT_REACHED, FrameType.PADDING, "The keys cannot be updated"
            )

    def prepare_send(self, number: int, packets: int) -> None:
        """Prepare to seal packets from `number` on."""
        if self._first_sent is None:
            self._first_sent = number
        self.sealed += packets

    def on_acked(self, ranges: list[tuple[int, int]]) -> None:
        """The peer acknowledged packets; ranges are ascending."""
        if self._first_sent is not None and ranges[-1][1] > self._first_sent:
            self._acked_in_phase = True

    # --- receiving ------------------------------------------------------------------------------

    def note_received(self, number: int, now: float, pto: float) -> None:
        """A packet of the current phase was opened."""
        if self.first_received is None or number < self.first_received:
            if self.first_received is None and self._previous is not None:
                self._retire_previous(now, pto)
            self.first_received = number

    def _retire_previous(self, now: float, pto: float) -> None:
        # Section 6.5: old read keys SHOULD be kept for no more than three times the PTO after the
        # first packet under the new ones.
        self._previous_until = now + OLD_KEYS_PTOS * pto

    def open_other(
        self, packet: bytes, pn_at: int, number: int, expected: int, now: float, pto: float
    ) -> Opened | None:
        """Open a packet of the other key phase; raises TransportError on a protocol violation.

        `number`: its packet number, which shows whether it is older than this phase.
        """
        assert self.recv is not None
        is_older = self.first_received is None or number < self.first_received
        if is_older and self._previous is not None and now < self._previous_until:
            result = self._previous.cipher.open_one(packet, pn_at, expected)
            if result is not None and result[2] is not None:
                return result
        if self._next is None:
            self._next = self.recv.next_phase()
        result = self._next.cipher.open_one(packet, pn_at, expected)
        if result is None or result[2] is None:
            self._check_old_keys(packet, pn_at, expected, now)
            return None
        # Section 6.2: a peer MUST NOT update twice without an acknowledgment in between, which it
        # has from us in a packet of the current phase.
        if self.updates and self._first_sent is None:
            raise TransportError(
                ErrorCode.KEY_UPDATE_ERROR, FrameType.PADDING, "Consecutive key updates"
            )
        self._rotate()
        self._retire_previous(now, pto)
        self.first_received = result[1]
        return result

    def _check_old_keys(self, packet: bytes, pn_at: int, expected: int, now: float) -> None:
        """Section 6.4: old keys on a packet with a higher number than one with newer keys."""
        if self._previous is None or self.first_received is None or now >= self._previous_until:
            return
        result = self._previous.cipher.open_one(packet, pn_at, expected)
        if result is not None and result[2] is not None and (
            result[1] > self.first_received
        ):  # fmt: skip
            raise TransportError(
                ErrorCode.KEY_UPDATE_ERROR, FrameType.PADDING, "Old keys after a key update"
            )

    def _rotate(self) -> None:
        assert self.recv is not None
        assert self.send is not None
        self._previous = self.recv
        self.recv = self._next if self._next is not None else self.recv.next_phase()
        self._next = None
        self.send = self.send.next_phase()
        self.phase ^= 1
        self.updates += 1
        self.requested = False
        self.sealed = 0
        self._first_sent = None
        self._acked_in_phase = False
