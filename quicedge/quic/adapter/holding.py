"""Keys in time: packets kept that come before them, old keys kept, and keys updated.

RFC 9001 sections 5.7, 6.5 and 6.6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aioquic import tls

from quicedge.config.limits import EARLY_PACKETS_HELD, KEY_UPDATE_PACKETS, OLD_KEYS_PTOS
from quicedge.quic.adapter.keys import PacketKeys
from quicedge.quic.adapter.lean import LeanConnection

ZERO_RTT, HANDSHAKE, ONE_RTT = tls.Epoch.ZERO_RTT, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT


class _Held(NamedTuple):
    """A datagram with a packet that could not be opened, and how it came."""

    data: bytes
    path: Any
    ecn: int


class HoldingConnection(LeanConnection):
    """A connection whose keys may come after packets that need them, and change on the way.

    Packets reordered before the handshake packet that brings their keys are handled again once it
    came: else a client's first requests, and a server's first flight, wait for a probe timeout.
    """

    received_ecn: int

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._held: list[_Held] = []
        self._held_bytes = 0
        self._has_new_keys = False
        self._may_hold = True
        self._keys_since = 0
        """Number of the first packet, or one soon after it, that the 1-RTT keys in use sealed."""
        self.datagrams_held = 0
        """Datagrams kept so far because keys were missing."""

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        for epoch in (HANDSHAKE, ONE_RTT):
            self._cryptos[epoch].__class__ = PacketKeys
        if not self._is_client:
            self._cryptos[ZERO_RTT] = PacketKeys()

    def _update_traffic_key(
        self,
        direction: tls.Direction,
        epoch: tls.Epoch,
        cipher_suite: tls.CipherSuite,
        secret: bytes,
    ) -> None:
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)
        if direction is tls.Direction.DECRYPT:
            self._has_new_keys = True

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._handshake_complete:
            self._tend_keys(now)
            super().receive_datagram(data, addr, now)
            return
        self._may_hold = self._held_bytes + len(data) <= EARLY_PACKETS_HELD
        super().receive_datagram(data, addr, now)
        if self._came_early() and self._may_hold:
            self._held.append(_Held(data, addr, self.received_ecn))
            self._held_bytes += len(data)
            self.datagrams_held += 1
        while self._has_new_keys and self._held:
            self._has_new_keys = False
            self._receive_held(now)
        self._has_new_keys = False
        if self._handshake_complete:
            self._held, self._held_bytes = [], 0

    def _receive_held(self, now: float) -> None:
        """Handle once more what is held; it is held on when keys are still missing."""
        held, self._held = self._held, []
        ecn = self.received_ecn
        for item in held:
            path = self._find_network_path(item.path)
            if not path.is_validated:
                path.bytes_received -= len(item.data)  # counted when it came
            self.received_ecn = item.ecn
            super().receive_datagram(item.data, item.path, now)
            if self._came_early():
                self._held.append(item)
        self.received_ecn = ecn
        self._held_bytes = sum(len(item.data) for item in self._held)

    def _came_early(self) -> bool:
        """Whether a packet of the datagram just handled waits for keys that may still come."""
        early = self._waits_for_keys()
        for epoch in (ZERO_RTT, HANDSHAKE, ONE_RTT):
            keys = self._cryptos.get(epoch)
            if isinstance(keys, PacketKeys):
                keys.missed = False
        return early

    def _waits_for_keys(self) -> bool:
        if self._handshake_complete:
            return False
        missed = {
            epoch
            for epoch in (ZERO_RTT, HANDSHAKE, ONE_RTT)
            if isinstance(keys := self._cryptos.get(epoch), PacketKeys) and keys.missed
        }
        if self._cryptos and self._cryptos[HANDSHAKE].recv.is_valid():
            # The client's hello is read: 0-RTT keys are there or never will be.
            missed.discard(ZERO_RTT)
        return bool(missed)

    @property
    def is_holding(self) -> bool:
        """Whether the packet that just found no keys is kept rather than dropped."""
        return self._may_hold and self._waits_for_keys()

    def _tend_keys(self, now: float) -> None:
        """Let go of the keys before an update in time, and update those that sealed enough.

        Called for what comes in: nobody sends so many packets without ACKs on the way. Where there
        are no previous keys, the peer has used the present ones (RFC 9001 section 6.1).
        """
        keys = self._cryptos[ONE_RTT]
        if not isinstance(keys, PacketKeys):
            return
        if keys.previous is not None:
            keys.expire_previous(now, OLD_KEYS_PTOS * self._loss.get_probe_timeout())
            self._keys_since = self._packet_number
        elif self._packet_number - self._keys_since >= KEY_UPDATE_PACKETS:
            self._keys_since = self._packet_number
            self.request_key_update()

    def handle_timer(self, now: float) -> None:
        if self._handshake_complete:
            self._tend_keys(now)
        super().handle_timer(now)
