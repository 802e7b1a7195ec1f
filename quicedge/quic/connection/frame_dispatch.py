"""Passes the frames of opened packets to the parts that they concern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.connection_ids import LocalConnectionIds, RemoteConnectionIds
from quicedge.quic.connection.establishment import Establishment
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.lifecycle import Lifecycle
from quicedge.quic.connection.migration import Migration
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.connection.streams import Streams
from quicedge.quic.ending import Ending
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import ConnectionTerminated, DatagramFrameReceived
from quicedge.quic.frames import (
    FRAME_TYPES,
    Ack,
    ConnectionClose,
    Crypto,
    Datagram,
    Epoch,
    FrameError,
    FrameType,
    NewToken,
    RetireConnectionId,
    decode_varint,
)
from quicedge.quic.frames import Stream as StreamFrame
from quicedge.quic.packet_cipher import Piece

_ONE_RTT = Epoch.ONE_RTT
_parse_stream = StreamFrame.parse

TokenHandler = Callable[[bytes], None]
"""Called with each token of NEW_TOKEN frames (clients)."""


def violation(kind: int, reason: str) -> TransportError:
    return TransportError(ErrorCode.PROTOCOL_VIOLATION, kind, reason)


def _streams(method: Callable[[Streams, Any], None]) -> Callable[[Any, Any, int], None]:
    """A receiver that passes the frame to the streams."""
    return lambda dispatch, frame, kind: method(dispatch.streams, frame)


class FrameDispatch:
    """Frames of one connection.

    Call `enter` with the context of a packet, then `receive` with its payload. Packets of one run
    share their context.
    """

    __slots__ = (
        "_acks", "_cid", "_counters", "_datagram_limit", "_epoch", "_establishment", "_events",
        "_is_client", "_life", "_local_ids", "_migration", "_now", "_path", "_paths", "_recovery",
        "_remote_ids", "_space", "_token_handler", "streams",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_client: bool,
        datagram_limit: int | None,
        life: Lifecycle,
        establishment: Establishment,
        streams: Streams,
        paths: Paths,
        migration: Migration,
        local_ids: LocalConnectionIds,
        remote_ids: RemoteConnectionIds,
        recovery: Recovery,
        acks: AckReceiver,
        events: EventQueue,
        counters: ConnectionCounters,
        token_handler: TokenHandler | None,
    ) -> None:
        """`datagram_limit`: largest DATAGRAM frame that we accept, in bytes; None accepts none."""
        self._is_client = is_client
        self._datagram_limit = datagram_limit
        self._life = life
        self._establishment = establishment
        self.streams = streams
        self._paths = paths
        self._migration = migration
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._recovery = recovery
        self._acks = acks
        self._events = events
        self._counters = counters
        self._token_handler = token_handler
        # context of the packet being processed
        self._path: Path
        self._cid: bytes
        self._space: PacketSpace
        self._epoch: Epoch
        self._now: float

    def enter(self, path: Path, cid: bytes, space: PacketSpace, epoch: Epoch, now: float) -> None:
        """Set the context: path and connection ID of the packets, their space, epoch and time."""
        self._path, self._cid, self._space, self._epoch = path, cid, space, epoch
        self._now = now

    def receive(self, payload: bytes, *, crypto: bool = False) -> tuple[bool, bool]:
        """Process the frames of a packet; returns whether it is ack-eliciting and probing.

        `crypto`: one of them must be a CRYPTO frame. Raises TransportError.
        """
        self._counters.packets_received += 1
        end = len(payload)
        at = 0
        eliciting, probing = False, True
        epoch = self._epoch
        permitted = 1 << epoch
        is_application = epoch is _ONE_RTT
        receive_stream = self.streams.receive_stream
        life = self._life
        kind = 0
        frames = 0
        try:
            while at < end:
                frames += 1
                kind = payload[at]
                if is_application and 0x08 <= kind <= 0x0F:
                    frame, at = _parse_stream(payload, at + 1, kind)
                    receive_stream(frame.stream_id, frame.offset, frame.data, frame.fin, kind)
                    eliciting, probing = True, False
                    continue
                if kind < 0x40:
                    at += 1
                else:
                    kind, at = decode_varint(payload, at)
                spec = FRAME_TYPES.get(kind)
                if spec is None:
                    raise FrameError("unknown frame type")
                if not spec.epochs & permitted:
                    # RFC 9000 section 12.4: MUST be treated as PROTOCOL_VIOLATION.
                    raise violation(kind, f"{spec.name} is not permitted in this packet")
                frame, at = spec.parse(payload, at, kind)
                eliciting |= spec.eliciting
                probing = probing and spec.probing
                crypto = crypto and kind != FrameType.CRYPTO
                receive = self._RECEIVERS.get(kind)
                if receive is not None:
                    receive(self, frame, kind)
                    if life.event is not None:  # a part of it has closed the connection
                        return eliciting, probing
        except FrameError as error:
            raise TransportError(ErrorCode.FRAME_ENCODING_ERROR, kind, str(error)) from error
        finally:
            self._counters.frames_received += frames
        if not end:
            # RFC 9000 section 12.4: an endpoint MUST treat receipt of a packet containing no
            # frames as a connection error of type PROTOCOL_VIOLATION.
            raise violation(FrameType.PADDING, "Packet contains no frames")
        if crypto:
            raise violation(FrameType.PADDING, "Packet contains no CRYPTO frame")
        return eliciting, probing

    def receive_streams(self, pieces: list[Piece], packets: int, frames: int) -> None:
        """Process packets that hold only stream data, which was joined to pieces."""
        self._counters.packets_received += packets
        self._counters.frames_received += frames
        receive_stream = self.streams.receive_stream
        for piece in pieces:
            receive_stream(*piece)

    # --- receivers ------------------------------------------------------------------------------

    def _receive_stream(self, frame: StreamFrame, kind: int) -> None:
        self.streams.receive_stream(frame.stream_id, frame.offset, frame.data, frame.fin, kind)

    def _receive_ack(self, frame: Ack, kind: int) -> None:
        self._acks.receive((kind, frame.ranges, frame.delay, frame.ecn), self._space, self._now)

    def _receive_crypto(self, frame: Crypto, kind: int) -> None:
        self._establishment.receive_crypto(
            frame, kind, self._epoch, self._space, self._path, self._now
        )

    def _receive_handshake_done(self, frame: object, kind: int) -> None:
        if not self._is_client:
            raise violation(kind, "Clients must not send HANDSHAKE_DONE frames")
        self._establishment.confirm(self._now)

    def _receive_new_token(self, frame: NewToken, kind: int) -> None:
        if not self._is_client:
            raise violation(kind, "Clients must not send NEW_TOKEN frames")
        if not frame.token:
            raise FrameError("empty token")
        if self._token_handler is not None:
            self._token_handler(frame.token)

    def _receive_close(self, frame: ConnectionClose, kind: int) -> None:
        reason = frame.reason.decode("utf-8", "replace")
        self._life.drain(
            ConnectionTerminated(
                error_code=frame.error_code, frame_type=frame.frame_type, reason_phrase=reason
            ),
            Ending.PEER_CLOSE,
            self._now + 3 * self._recovery.probe_timeout(),
        )

    def _receive_new_connection_id(self, frame: Any, kind: int) -> None:
        self._remote_ids.receive_new(frame, self._paths.reserved_ids)

    def _receive_retire_connection_id(self, frame: RetireConnectionId, kind: int) -> None:
        self._local_ids.receive_retire(frame.sequence_number, self._cid)

    def _receive_path_challenge(self, frame: Any, kind: int) -> None:
        self._path.receive_challenge(frame.data)

    def _receive_path_response(self, frame: Any, kind: int) -> None:
        self._migration.receive_response(frame.data, self._now)

    def _receive_datagram(self, frame: Datagram, kind: int) -> None:
        limit = self._datagram_limit
        # RFC 9221 section 3: the limit includes frame type and length.
        if limit is None or len(frame.data) + 1 > limit:
            raise violation(kind, "Unexpected DATAGRAM frame")
        self._events.append(DatagramFrameReceived(data=frame.data))

    _RECEIVERS: ClassVar[dict[int, Callable[[Any, Any, int], None]]] = {
        FrameType.ACK: _receive_ack,
        FrameType.ACK_ECN: _receive_ack,
        FrameType.RESET_STREAM: _streams(Streams.receive_reset),
        FrameType.STOP_SENDING: _streams(Streams.receive_stop_sending),
        FrameType.CRYPTO: _receive_crypto,
        FrameType.NEW_TOKEN: _receive_new_token,
        **dict.fromkeys(range(FrameType.STREAM, FrameType.STREAM_LAST + 1), _receive_stream),
        FrameType.MAX_DATA: _streams(Streams.receive_max_data),
        FrameType.MAX_STREAM_DATA: _streams(Streams.receive_max_stream_data),
        FrameType.MAX_STREAMS_BIDI: _streams(Streams.receive_max_streams_bidi),
        FrameType.MAX_STREAMS_UNI: _streams(Streams.receive_max_streams_uni),
        FrameType.STREAM_DATA_BLOCKED: _streams(Streams.receive_stream_data_blocked),
        FrameType.NEW_CONNECTION_ID: _receive_new_connection_id,
        FrameType.RETIRE_CONNECTION_ID: _receive_retire_connection_id,
        FrameType.PATH_CHALLENGE: _receive_path_challenge,
        FrameType.PATH_RESPONSE: _receive_path_response,
        FrameType.TRANSPORT_CLOSE: _receive_close,
        FrameType.APPLICATION_CLOSE: _receive_close,
        FrameType.HANDSHAKE_DONE: _receive_handshake_done,
        FrameType.DATAGRAM: _receive_datagram,
        FrameType.DATAGRAM_WITH_LENGTH: _receive_datagram,
    }
    """Receivers by frame type; types without one need no action."""
