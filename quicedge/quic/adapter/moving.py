"""Path validation that survives the loss of an answer (RFC 9000 section 8.2)."""

from __future__ import annotations

from aioquic.quic.connection import QuicNetworkPath
from aioquic.quic.packet_builder import QuicDeliveryState

from quicedge.quic.adapter.strict import StrictConnection


class MovingConnection(StrictConnection):
    """Challenges a new path again and again until it answers or the validation is over."""

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
