"""aioquic's connection with flow control by consumption and with state that can be seen."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from hmac import compare_digest
from typing import Any, NamedTuple, Protocol, cast

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnectionId,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from quicedge.config.limits import ACTIVE_CONNECTION_IDS
from quicedge.quic.adapter.closing import ClosingConnection
from quicedge.quic.adapter.tls import ServerTls
from quicedge.quic.congestion import make_controller
from quicedge.quic.ending import Delivery, Ending
from quicedge.quic.frames import decode_varint
from quicedge.quic.parameters import (
    MAX_UDP_PAYLOAD_SIZE,
    PREFERRED_ADDRESS,
    encode_parameters,
    split_parameters,
)
from quicedge.quic.pmtud import PathMtu
from quicedge.quic.preferred import PreferredAddress
from quicedge.quic.recovery import Recovery
from quicedge.quic.tls import CertificateStore, ServerCertificate
from quicedge.telemetry.trace import Trace

# aioquic makes a recovery of its own first, which ours replaces; it must know every name.
register_congestion_control("bbr", RenoCongestionControl)

_ALIVE = (QuicConnectionState.FIRSTFLIGHT, QuicConnectionState.CONNECTED)


class ConnectionIdSource(Protocol):
    """Where connection IDs and their reset tokens come from (`quic.cids.ConnectionIds`)."""

    def new(self) -> bytes: ...

    def reset_token(self, connection_id: bytes) -> bytes: ...


class PathView(NamedTuple):
    """A network path and what crossed it, in bytes (counted until it is validated)."""

    address: Any
    validated: bool
    bytes_received: int
    bytes_sent: int


class StateConnection(ClosingConnection):
    """A QUIC connection whose flow control follows consumption and whose state can be seen."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        certificates: CertificateStore | None = None,
        connection_ids: ConnectionIdSource | None = None,
        max_streams_bidi: int | None = None,
        max_streams_uni: int | None = None,
        mtu_ceiling: int | None = None,
        preferred_address: PreferredAddress | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(configuration=configuration, **rest)
        self._certificates = certificates
        self._preferred_address = preferred_address
        self.trace: Trace | None = None
        """Where the connection's events are written; None: nowhere."""
        self._now = 0.0
        self._connection_ids = connection_ids
        self._stream_window = configuration.max_stream_data
        self._connection_window = configuration.max_data
        self._credited: dict[int, QuicStream] = {}
        if connection_ids is not None:
            self._local_active_connection_id_limit = ACTIVE_CONNECTION_IDS
            self._adopt_first_connection_id(connection_ids)
        if max_streams_bidi is not None:
            self._local_max_streams_bidi.value = max_streams_bidi
            self._local_max_streams_bidi.sent = max_streams_bidi
        if max_streams_uni is not None:
            self._local_max_streams_uni.value = max_streams_uni
            self._local_max_streams_uni.sent = max_streams_uni
        this = weakref.ref(self)  # a bound method would make a cycle of us and our recovery
        self._loss: Recovery = Recovery(  # type: ignore[assignment]  # same calls, own records
            controller=make_controller(
                configuration.congestion_control_algorithm, self._max_datagram_size
            ),
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=not self._is_client,
            send_probe=lambda: cast(StateConnection, this())._send_probe(),
        )
        self.mtu = PathMtu(mtu_ceiling or self._max_datagram_size)
        self._mtu_path: QuicNetworkPath | None = None
        self.packets_received = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self._written = 0
        """Bytes written to streams, less those that a reset kept from being sent."""
        self.bytes_dropped = 0
        """Of `bytes_received`, those of datagrams that held nothing new: anybody may send them."""
        self.packets_dropped: Counter[str] = Counter()
        """Datagrams that held nothing new, by reason (qlog's triggers)."""
        self.received_at: float | None = None
        """When the last one that held something came."""
        self.migrations = 0
        self.ending: Ending | None = None
        """What ended the connection, from the moment it is known; None while it lives."""

    def _adopt_first_connection_id(self, source: ConnectionIdSource) -> None:
        cid = source.new()
        token = None if self._is_client else source.reset_token(cid)
        self._host_cids = [
            QuicConnectionId(
                cid=cid,
                sequence_number=0,
                stateless_reset_token=token,  # type: ignore[arg-type]  # as aioquic's client does
                was_sent=True,
            )
        ]
        self.host_cid = cid
        self._local_initial_source_connection_id = cid

    def _replenish_connection_ids(self) -> None:
        if self._connection_ids is None:
            super()._replenish_connection_ids()
            return
        while len(self._host_cids) < min(
            ACTIVE_CONNECTION_IDS, self._remote_active_connection_id_limit
        ):
            cid = self._connection_ids.new()
            self._host_cids.append(
                QuicConnectionId(
                    cid=cid,
                    sequence_number=self._host_cid_seq,
                    stateless_reset_token=self._connection_ids.reset_token(cid),
                )
            )
            self._host_cid_seq += 1

    def _serialize_transport_parameters(self) -> bytes:
        parameters = super()._serialize_transport_parameters()
        if self._preferred_address is None or self._connection_ids is None:
            return parameters
        cid = self._connection_ids.new()
        token = self._connection_ids.reset_token(cid)
        # RFC 9000 section 5.1.1: the sequence number of this connection ID is 1.
        self._host_cids.append(
            QuicConnectionId(cid=cid, sequence_number=1, stateless_reset_token=token, was_sent=True)
        )
        self._host_cid_seq = 2
        self._events.append(events.ConnectionIdIssued(connection_id=cid))
        value = self._preferred_address.encode(cid, token)
        return parameters + encode_parameters([(PREFERRED_ADDRESS, value)])

    # --- what the peer sends --------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Handle one datagram of this connection; `addr` is an opaque network path."""
        self._now = now
        self.bytes_received += len(data)
        handled, held = self.packets_received, self.datagrams_held
        path = self._network_paths[0] if self._network_paths else None
        super().receive_datagram(data, addr, now)
        if self.packets_received == handled:
            if self.datagrams_held == held:
                self.bytes_dropped += len(data)
                self.packets_dropped[self._why_dropped(data, addr)] += 1
            return
        self.received_at = now
        if path is not None and self._network_paths[0] is not path:
            self.migrations += 1

    def _why_dropped(self, data: bytes, addr: Any) -> str:
        """A trigger of qlog's `packet_dropped`, `general` where more cannot be said."""
        # RFC 9001 section 4.9: Initial and Handshake keys are discarded with the handshake.
        is_late = self._handshake_confirmed and data[0] & 0x80
        return "key_unavailable" if is_late else "general"

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self.packets_received += 1
        # RFC 9000 section 17.2.2: the first packet that a client sends, which is number 0, always
        # includes a CRYPTO frame. aioquic wants one in the first that arrives; but after a loss a
        # probe may come first, and only its ACK tells the client what to send again.
        if crypto_frame_required and self._spaces[context.epoch].expected_packet_number > 0:
            crypto_frame_required = False
        return super()._payload_received(context, plain, crypto_frame_required)

    def _handle_reset_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        known = self._streams.get(stream_id)
        was_finished = known is not None and known.receiver.is_finished
        super()._handle_reset_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None and not was_finished:
            # What was never delivered will never be consumed: give it back to the connection.
            receiver = stream.receiver
            self._local_max_data.value += receiver.highest_offset - receiver.starting_offset()
            receiver._buffer = bytearray()

    @property
    def _is_logged_by_aioquic(self) -> bool:
        """Whether aioquic's own packet log is on, which only its general path writes."""
        return self._quic_logger is not None and self.trace is None

    # --- flow control ---------------------------------------------------------------------

    def consume(self, stream_id: int, nbytes: int) -> None:
        """Credit `nbytes` of a stream that the application is done with.

        RFC 9000 section 4.2 leaves it to the receiver when to extend its limits; extending them
        only here keeps at most one window of bytes in memory, however slow the origin.
        """
        self._local_max_data.value += nbytes
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            stream.max_stream_data_local += nbytes
            grant = stream.max_stream_data_local - stream.max_stream_data_local_sent
            if grant >= self._stream_window // 2:
                self._credited[stream_id] = stream

    def _due_connection_limits(self) -> list[Limit]:
        """Connection limits whose raise is worth a frame."""
        due = []
        for limit in (
            self._local_max_data,
            self._local_max_streams_bidi,
            self._local_max_streams_uni,
        ):
            grant = limit.value - limit.sent
            if limit is self._local_max_data:
                if grant >= self._connection_window // 2:
                    due.append(limit)
            # Not while the peer has more streams left to open than this would grant.
            elif grant > limit.sent - limit.used:
                due.append(limit)
        return due

    def _take_due_stream_limits(self) -> list[QuicStream]:
        """Streams whose raised limit is worth a frame; they are due once."""
        if not self._credited:
            return []
        due = [s for s in self._credited.values() if not s.receiver.is_finished]
        self._credited.clear()
        return due

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        if delivery != QuicDeliveryState.ACKED and stream.stream_id in self._streams:
            self._credited[stream.stream_id] = stream

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        for limit in self._due_connection_limits():
            buf = builder.start_frame(
                limit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            buf.push_uint_var(limit.value)
            limit.sent = limit.value
            if self._quic_logger is not None and builder.quic_logger_frames is not None:
                builder.quic_logger_frames.append(
                    self._quic_logger.encode_connection_limit_frame(
                        frame_type=limit.frame_type, maximum=limit.value
                    )
                )

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        stream_id = stream.stream_id
        if stream_id not in self._credited:
            return
        buf = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        buf.push_uint_var(stream_id)
        buf.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local
        del self._credited[stream_id]
        if self._quic_logger is not None and builder.quic_logger_frames is not None:
            builder.quic_logger_frames.append(
                self._quic_logger.encode_max_stream_data_frame(
                    maximum=stream.max_stream_data_local, stream_id=stream_id
                )
            )

    # --- what we send -----------------------------------------------------------------------

    def can_send_on(self, stream_id: int) -> bool:
        """Whether data written to the stream would still be sent."""
        stream = self._streams.get(stream_id)
        return (
            stream is not None
            and not stream.sender.is_finished
            and stream.sender._reset_error_code is None
            and stream.sender._buffer_fin is None
        )

    def can_receive_on(self, stream_id: int) -> bool:
        """Whether more data of the stream may arrive."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.receiver.is_finished

    def can_reset(self, stream_id: int) -> bool:
        """Whether a reset would still keep anything of the stream from the peer."""
        return self.delivery(stream_id) not in (Delivery.DELIVERED, Delivery.RESET)

    def delivery(self, stream_id: int) -> Delivery:
        """How far what we write on a stream has come; streams that are forgotten are delivered."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return Delivery.DELIVERED
        sender = stream.sender
        if sender._reset_error_code is not None:
            return Delivery.RESET
        if sender.is_finished:
            return Delivery.DELIVERED
        if sender._buffer_fin is None:
            return Delivery.OPEN
        return (
            Delivery.QUEUED if len(sender._pending) or sender._pending_eof else Delivery.IN_FLIGHT
        )

    def delivered_streams(self, stream_ids: Iterable[int]) -> list[int]:
        """Those whose `delivery` is DELIVERED; one look at many, after each ACK."""
        known = self._streams
        found = []
        for stream_id in stream_ids:
            stream = known.get(stream_id)
            if stream is None or (
                stream.sender.is_finished and stream.sender._reset_error_code is None
            ):
                found.append(stream_id)
        return found

    def unacknowledged_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream, sent or not, from the first that is not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender._buffer_start

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream that were never sent."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._reset_error_code is not None:
            return 0
        return stream.sender._buffer_stop - stream.sender.highest_offset

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        # RFC 9000 section 18.2: the limit that aioquic checks and forgets.
        limit = dict(split_parameters(data)).get(MAX_UDP_PAYLOAD_SIZE)
        if limit is not None:
            self.mtu.limit(decode_varint(limit, 0)[0])

    # --- TLS ----------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self._certificates is not None:
            self.tls.__class__ = ServerTls
            cast(ServerTls, self.tls).choose_certificates_from(self._certificates)

    @property
    def server_name(self) -> str | None:
        """The server name that the client asked for (servers only)."""
        return getattr(getattr(self, "tls", None), "server_name", None)

    @property
    def certificate(self) -> ServerCertificate | None:
        """The certificate this connection was served (servers only)."""
        return getattr(getattr(self, "tls", None), "selected", None)

    # --- state, readable -------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """Neither closing, draining nor terminated."""
        return self._state in _ALIVE and not self._close_pending

    @property
    def is_terminated(self) -> bool:
        return self._state is QuicConnectionState.TERMINATED

    @property
    def state_name(self) -> str:
        if self._state is QuicConnectionState.CONNECTED and not self._handshake_complete:
            return "handshake"
        return self._state.name.lower()

    @property
    def handshake_complete(self) -> bool:
        return self._handshake_complete

    @property
    def close_event(self) -> events.ConnectionTerminated | None:
        """Why the connection is over, once it is."""
        return self._close_event

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        if self.is_alive:
            self.ending = Ending.LOCAL_CLOSE
        super().close(error_code, frame_type, reason_phrase)

    def _handle_connection_close_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        if self.is_alive:
            self.ending = Ending.PEER_CLOSE
        super()._handle_connection_close_frame(context, frame_type, buf)

    def handle_timer(self, now: float) -> None:
        if self.ending is None and self._close_at is not None and now >= self._close_at:
            self.ending = Ending.IDLE_TIMEOUT
        super().handle_timer(now)

    def _close_end(self) -> None:
        if self.ending is None:
            self.ending = Ending.ABORTED
        super()._close_end()

    @property
    def version(self) -> int:
        return self._version or 0

    @property
    def host_cids(self) -> list[bytes]:
        """Connection IDs that the peer may use towards us."""
        return [entry.cid for entry in self._host_cids]

    @property
    def peer_cid(self) -> bytes:
        return self._peer_cid.cid

    @property
    def validated_path(self) -> Any | None:
        """The network path in use once its address is validated, else the last validated one.

        Access rules and logs see this one: an address that a packet merely claims proves nothing
        (RFC 9000 section 9.3).
        """
        for path in self._network_paths:
            if path.is_validated:
                return path.addr
        return None

    def is_stateless_reset(self, data: bytes) -> bool:
        """Whether the peer has forgotten the connection and says so (RFC 9000 section 10.3.1)."""
        token = self._peer_cid.stateless_reset_token
        return len(data) >= 21 and bool(token) and compare_digest(data[-16:], token)

    @property
    def active_path(self) -> Any | None:
        return self._network_paths[0].addr if self._network_paths else None

    @property
    def active_path_validated(self) -> bool:
        return bool(self._network_paths) and self._network_paths[0].is_validated

    @property
    def recovery(self) -> Recovery:
        """Round-trip time, losses and congestion window."""
        return self._loss

    @property
    def paths(self) -> list[PathView]:
        """Network paths, the one in use first."""
        return [
            PathView(path.addr, path.is_validated, path.bytes_received, path.bytes_sent)
            for path in self._network_paths
        ]

    @property
    def max_datagram_size(self) -> int:
        """UDP payload bytes of the packets sent."""
        return self._max_datagram_size

    @property
    def alpn(self) -> str | None:
        """The application protocol, once negotiated."""
        context = getattr(self, "tls", None)
        return context.alpn_negotiated if context is not None else None

    @property
    def cipher(self) -> str | None:
        """The cipher suite's name, once negotiated."""
        suite = self._cryptos[tls.Epoch.ONE_RTT].send.cipher_suite if self._cryptos else None
        return suite.name if suite is not None else None

    @property
    def resumed(self) -> bool:
        """Whether a session ticket replaced the certificate."""
        context = getattr(self, "tls", None)
        return bool(context is not None and context.session_resumed)

    @property
    def retried(self) -> bool:
        """Whether the client was sent a Retry."""
        return self._retry_source_connection_id is not None

    @property
    def streams_open(self) -> int:
        """Bidirectional streams that the peer has opened and that are not finished."""
        initiator = 1 if self._is_client else 0
        return sum(stream_id & 3 == initiator for stream_id in self._streams)

    @property
    def responses_delivered(self) -> bool:
        """Whether all that was sent on the peer's bidirectional streams is acknowledged."""
        return all(
            stream.sender.is_finished
            for stream_id, stream in self._streams.items()
            if stream_id & 3 == (1 if self._is_client else 0)
        )

    @property
    def streams_total(self) -> int:
        """Bidirectional streams that the peer has opened."""
        return self._local_max_streams_bidi.used

    @property
    def streams_allowed(self) -> int:
        """Bidirectional streams that the peer may have opened in all."""
        return self._local_max_streams_bidi.value

    @property
    def receive_window(self) -> int:
        """Bytes the peer may still send on the connection."""
        return self._local_max_data.value - self._local_max_data.used

    @property
    def send_window(self) -> int:
        """Bytes we may still send on the connection."""
        return self._remote_max_data - self._remote_max_data_used

    def acknowledged_bytes(self, stream_id: int) -> int:
        """Bytes of a stream, from its start, that the peer has acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_start

    @property
    def stream_bytes(self) -> int:
        """Bytes that streams carried both ways, each counted once."""
        return self._local_max_data.used + self._remote_max_data_used

    @property
    def send_buffered(self) -> int:
        """Bytes written to all streams that were never sent; costs the same for any number."""
        return self._written - self._remote_max_data_used

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        super().send_stream_data(stream_id, data, end_stream)
        self._written += len(data)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        self._drop_unsent(stream_id)
        super().reset_stream(stream_id, error_code)

    def _handle_stop_sending_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        self._drop_unsent(stream_id)
        super()._handle_stop_sending_frame(context, frame_type, buf)

    def _drop_unsent(self, stream_id: int) -> None:
        """Let go of what a stream that is about to be reset still holds."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._written -= self.unsent_bytes(stream_id)
            stream.sender._buffer = bytearray()

    def is_flow_blocked(self, stream_id: int) -> bool:
        """Whether the peer's limits for the stream or the connection hold its data back."""
        stream = self._streams.get(stream_id)
        return stream is not None and (
            stream.sender.highest_offset >= stream.max_stream_data_remote
            or self._remote_max_data_used >= self._remote_max_data
        )

    @property
    def key_phase(self) -> int:
        crypto = self._cryptos.get(tls.Epoch.ONE_RTT)
        return crypto.key_phase if crypto is not None else 0

    def abandon(self, event: events.ConnectionTerminated, ending: Ending = Ending.ABORTED) -> None:
        """End at once, sending nothing more."""
        if not self.is_terminated:
            self.ending = self.ending or ending
            self._close_event = self._close_event or event
            if not self._spaces:
                self._state = QuicConnectionState.TERMINATED
                self._events.append(self._close_event)
            else:
                self._close_end()
