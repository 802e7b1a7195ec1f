"""The HTTP/3 client that attackers build upon."""

from __future__ import annotations

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent


class HostileClient(QuicConnectionProtocol):
    """A client that sends requests and reads no response."""

    ended = False
    _http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        self.ended |= isinstance(event, ConnectionTerminated)

    def ask(self, path: bytes, method: bytes = b"GET", end: bool = True) -> int:
        assert self._http is not None
        stream_id = self._quic.get_next_available_stream_id()
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"),
                  (b":path", path)]  # fmt: skip
        self._http.send_headers(stream_id, fields, end_stream=end)
        return stream_id
