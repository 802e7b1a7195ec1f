"""Path validation: what proves an address, and answers that are lost (RFC 9000 section 8)."""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import QuicNetworkPath
from aioquic.quic.packet_builder import QuicDeliveryState

from quicedge.quic.adapter.strict import StrictConnection


class MovingConnection(StrictConnection):
    """Challenges a new path again and again until it answers or the validation is over."""

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._is_client or self._handshake_complete or not self._network_paths:
            super().receive_datagram(data, addr, now)
            return
        known = list(self._network_paths)
        validated = [path for path in known if path.is_validated]
        super().receive_datagram(data, addr, now)
        if len(self._network_paths) > 1:
            self._heed_rebinding(known, validated)

    def _heed_rebinding(
        self, known: list[QuicNetworkPath], validated: list[QuicNetworkPath]
    ) -> None:
        """Decide anew what a Handshake packet proves when the address changed in the handshake.

        RFC 9000 section 8.1: it shows that the client has our Initial packets, so it validates the
        address that they were sent to, not the one that it comes from, as aioquic has it. That one
        is sent a PATH_CHALLENGE with HANDSHAKE_DONE. Where our packets went to several addresses,
        it shows of none that the client is there.
        """
        proven = [path for path in self._network_paths
                  if path.is_validated and path not in validated]  # fmt: skip
        for path in proven:
            path.is_validated = False
        if proven and len(known) == 1:
            known[0].is_validated = True

    def _on_path_challenge_delivery(
        self, delivery: QuicDeliveryState, network_path: QuicNetworkPath
    ) -> None:
        super()._on_path_challenge_delivery(delivery, network_path)
        # RFC 9000 section 8.2.2: a PATH_RESPONSE is sent once, so when it is lost the peer has
        # acknowledged the challenge and will never answer it; only another one brings an answer.
        # Without it the path is given up for the old one, where nobody listens any more.
        if (
            delivery == QuicDeliveryState.ACKED
            and network_path is self._network_paths[0]
            and not network_path.is_validated
        ):
            network_path.local_challenge_sent = False
