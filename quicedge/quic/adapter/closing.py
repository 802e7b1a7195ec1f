"""The closing state: CONNECTION_CLOSE again for whoever has not heard it (RFC 9000 10.2)."""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import QuicConnectionState

from quicedge.quic.adapter.holding import HoldingConnection


class ClosingConnection(HoldingConnection):
    """Answers packets that come after we closed, at a falling rate; a draining one stays silent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._farewell: list[tuple[bytes, Any]] = []
        """The datagrams of our CONNECTION_CLOSE, sent again as they are."""
        self._heard_closing = 0
        """Datagrams received in the closing state."""
        self._farewell_due = False

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._state is not QuicConnectionState.CLOSING:
            super().receive_datagram(data, addr, now)
            return
        path = self._network_paths[0]
        # RFC 9000 section 10.2.1: packets from a new address may be discarded, lest we become a
        # means of amplification; unopened, these prove nothing.
        if addr != path.addr:
            return
        path.bytes_received += len(data)
        self._heard_closing += 1
        # An endpoint SHOULD limit the rate at which it generates packets in the closing state:
        # the 1st, 2nd, 4th, 8th ... datagram is answered.
        self._farewell_due |= self._heard_closing.bit_count() == 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        if self._state is not QuicConnectionState.CLOSING:
            sent = super().datagrams_to_send(now)
            # Read anew: sending a CONNECTION_CLOSE enters the closing state.
            if self._is_closing:
                self._farewell = sent
            return sent
        if not self._farewell_due:
            return []
        self._farewell_due = False
        path = self._network_paths[0]
        size = sum(len(data) for data, _ in self._farewell)
        if not path.can_send(size):
            return []
        path.bytes_sent += size
        return self._farewell

    @property
    def _is_closing(self) -> bool:
        return self._state is QuicConnectionState.CLOSING

    def _close_end(self) -> None:
        super()._close_end()
        self._farewell = []
