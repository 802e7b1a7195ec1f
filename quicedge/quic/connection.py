"""One QUIC connection as the edge sees it: deadlines, the handler of its events, its address."""

from __future__ import annotations

from typing import Any, Protocol

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from quicedge.config.limits import (
    FLOOD_BURST,
    FLOOD_CHECK_EVERY,
    FLOOD_RATE,
    FLOOD_SHARE,
    HANDSHAKE_TIMEOUT,
    MAX_STREAMS_BIDI,
    MAX_STREAMS_UNI,
)
from quicedge.quic.adapter import AdaptedConnection, ConnectionIdSource
from quicedge.quic.ending import Ending
from quicedge.quic.tls import CertificateStore
from quicedge.shares import Standing, WorkBudget


class ConnectionHandler(Protocol):
    """What sits on a connection (an HTTP/3 session, for one)."""

    def handle_event(self, event: QuicEvent) -> None:
        """One aioquic event, in order. An exception closes this connection alone."""

    def pumped(self) -> None:
        """Events were delivered and packets sent: send buffers may have room, or be empty."""


class Connection(AdaptedConnection):
    """A connection with a handshake deadline. Time is always a parameter, in seconds."""

    handler: ConnectionHandler
    came_from: Any = None
    """The network path of the first datagram: what it claims, not yet proven."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        now: float,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        certificates: CertificateStore | None = None,
        connection_ids: ConnectionIdSource | None = None,
        max_streams_bidi: int = MAX_STREAMS_BIDI,
        max_streams_uni: int = MAX_STREAMS_UNI,
        **rest: Any,
    ) -> None:
        super().__init__(
            configuration=configuration,
            certificates=certificates,
            connection_ids=connection_ids,
            max_streams_bidi=max_streams_bidi,
            max_streams_uni=max_streams_uni,
            **rest,
        )
        self.created_at = now
        self.id = self.original_destination_connection_id.hex()
        self.handshake_seconds: float | None = None
        """From the first packet to a complete handshake; None until then."""
        self._handshake_deadline = now + handshake_timeout
        self.flood_check_at = FLOOD_CHECK_EVERY
        """`bytes_received` from which `check_flood` should be called again."""
        self._overhead = WorkBudget(FLOOD_BURST, FLOOD_RATE, now)
        self._settled = 0
        """Overhead up to the last look, in bytes; negative where streams carried more."""

    def check_flood(self, now: float) -> Standing:
        """Judge how much of what arrives is stream data; closes the connection of a hostile peer.

        Every frame costs us something. Those that carry no stream data (PING, PATH_CHALLENGE,
        NEW_CONNECTION_ID, MAX_DATA, empty STREAM frames, ...) are bounded by rate and by share.
        Forged and replayed datagrams do not count: the peer did not send them.
        """
        self.flood_check_at = self.bytes_received + FLOOD_CHECK_EVERY
        overhead = self.bytes_received - self.bytes_dropped - FLOOD_SHARE * self.stream_bytes
        spent, self._settled = overhead - self._settled, overhead
        if spent < 0:
            self._overhead.earn(-spent)
        standing = self._overhead.spend(max(spent, 0), now)
        if standing is Standing.HOSTILE:
            self.close(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                reason_phrase="flood",
                frame_type=QuicFrameType.PADDING,
            )
        return standing

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        super().receive_datagram(data, addr, now)
        if self.handshake_seconds is None and self.handshake_complete:
            self.handshake_seconds = now - self.created_at

    def get_timer(self) -> float | None:
        timer = super().get_timer()
        if self.handshake_seconds is None and self.is_alive:
            return (
                self._handshake_deadline if timer is None else min(timer, self._handshake_deadline)
            )
        return timer

    def handle_timer(self, now: float) -> None:
        if self.handshake_seconds is None and self.is_alive and now >= self._handshake_deadline:
            # Silently, as an idle timeout (RFC 9000 section 10.1): the address is unproven.
            self.abandon(
                ConnectionTerminated(
                    error_code=QuicErrorCode.INTERNAL_ERROR,
                    frame_type=QuicFrameType.PADDING,
                    reason_phrase="Handshake timeout",
                ),
                Ending.HANDSHAKE_TIMEOUT,
            )
            return
        super().handle_timer(now)
