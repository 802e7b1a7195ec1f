"""What a connection does as its handshake proceeds.

It queues TLS output, applies the peer's transport parameters, issues connection IDs once the
handshake is complete, and discards keys and packet number spaces (RFC 9001 section 4.9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quicedge.config.limits import MAX_CRYPTO_OFFSET
from quicedge.quic.connection.acks import AckReceiver
from quicedge.quic.connection.assembler import TooManyGaps
from quicedge.quic.connection.connection_ids import LocalConnectionIds, RemoteConnectionIds
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.idle import IdleTimer
from quicedge.quic.connection.migration import Migration
from quicedge.quic.connection.observer import Observer
from quicedge.quic.connection.paths import Path
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.signals import ConfirmationSignal
from quicedge.quic.connection.spaces import PacketSpace
from quicedge.quic.connection.streams import Streams
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.events import HandshakeCompleted, ProtocolNegotiated
from quicedge.quic.frames import Crypto, Epoch
from quicedge.quic.transport_parameters import TransportParameters

MakeToken = Callable[[Any, int, float], bytes]
"""Returns the NEW_TOKEN token for a path, a QUIC version and a time."""


class Establishment:
    """Establishes one connection, client or server.

    A client calls `start`; a server starts TLS itself with the first Initial packet and calls
    `adopt_peer` for it, as a client does for the first packet of the server. `receive_crypto` then
    drives the handshake; the owner calls `settle` once it is confirmed.
    """

    __slots__ = (
        "_acks", "_address_validated", "_are_parameters_applied", "_confirmation", "_events",
        "_handshake", "_has_probed", "_idle", "_is_client", "_local_ids", "_make_token",
        "_migration", "_recovery", "_remote_ids", "_spaces", "_streams", "is_settled", "observer",
    )  # fmt: skip

    def __init__(
        self,
        *,
        handshake: Handshake,
        spaces: dict[Epoch, PacketSpace],
        streams: Streams,
        recovery: Recovery,
        acks: AckReceiver,
        migration: Migration,
        local_ids: LocalConnectionIds,
        remote_ids: RemoteConnectionIds,
        idle: IdleTimer,
        events: EventQueue,
        confirmation: ConfirmationSignal,
        address_validated: bool,
        make_token: MakeToken | None,
    ) -> None:
        self._is_client = handshake.is_client
        self._handshake = handshake
        self._spaces = spaces
        self._streams = streams
        self._recovery = recovery
        self._acks = acks
        self._migration = migration
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._idle = idle
        self._events = events
        self._confirmation = confirmation
        self._address_validated = address_validated
        self._make_token = make_token
        self._are_parameters_applied = False
        self._has_probed = False
        self.is_settled = False
        """Whether handshake-only state has been released."""
        self.observer: Observer | None = None

    def start(self, now: float) -> None:
        """Send the ClientHello; with a ticket, 0-RTT data may follow."""
        handshake = self._handshake
        handshake.start(self._remote_ids.current.cid, now)
        if handshake.remembered is not None:
            self._apply_limits(handshake.remembered)
        self._queue_output()

    def adopt_peer(self, source_cid: bytes, path: Path, now: float) -> None:
        """The peer's first authentic packet: adopt its connection ID; a server, also its path."""
        self._handshake.remote_source_cid = source_cid
        self._remote_ids.adopt(source_cid)
        if not self._is_client:
            path.is_validated = path.is_validated or self._address_validated
            self._migration.start(path, now)

    # --- TLS ------------------------------------------------------------------------------------

    def receive_crypto(
        self, frame: Crypto, kind: int, epoch: Epoch, space: PacketSpace, path: Path, now: float
    ) -> None:
        if frame.offset + len(frame.data) > MAX_CRYPTO_OFFSET:
            raise TransportError(
                ErrorCode.CRYPTO_BUFFER_EXCEEDED, kind, "CRYPTO offset exceeds limit"
            )
        try:
            ready = space.crypto_in.insert(frame.offset, frame.data)
        except TooManyGaps as error:
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION, kind, "Too many gaps in CRYPTO data"
            ) from error
        handshake = self._handshake
        if ready:
            was_complete = handshake.is_complete
            handshake.receive_crypto(epoch, ready, now)
            self._queue_output()
            if handshake.remote is not None and not self._are_parameters_applied:
                self._apply_parameters(handshake.remote)
            if handshake.is_complete and not was_complete:
                self._complete(path, now)
        elif (
            frame.data
            and frame.offset + len(frame.data) <= space.crypto_in.start
            and epoch is Epoch.INITIAL
            and not self._is_client
        ):
            # The client has not received what we sent.
            self.probe_early()

    def _queue_output(self) -> None:
        for epoch, message in self._handshake.output:
            space = self._spaces.get(epoch)
            if space is not None:
                space.crypto_out.write(message, fin=False)
        self._handshake.output.clear()

    def probe_early(self) -> None:
        """The first flight was probably lost: send it again before the probe timeout, but only once
        (RFC 9002 section 6.2.3)."""
        if not self._has_probed:
            self._has_probed = True
            self._recovery.probe(self._spaces[Epoch.INITIAL])

    # --- transport parameters -------------------------------------------------------------------

    def _apply_parameters(self, remote: TransportParameters) -> None:
        """Apply the peer's validated transport parameters."""
        self._are_parameters_applied = True
        self._apply_limits(remote)
        if remote.ack_delay_exponent is not None:
            self._acks.exponent = remote.ack_delay_exponent
        if remote.max_ack_delay is not None:
            self._recovery.max_ack_delay = remote.max_ack_delay / 1000
        if remote.max_udp_payload_size is not None:
            self._migration.limit_datagrams(remote.max_udp_payload_size)
        if remote.stateless_reset_token is not None:
            self._remote_ids.use_token(remote.stateless_reset_token)
        if remote.preferred_address is not None:
            preferred = remote.preferred_address
            self._remote_ids.add_preferred(preferred.connection_id, preferred.reset_token)
        observer = self.observer
        if observer is not None:
            observer.remote_exponent = self._acks.exponent
            observer.parameters_set("remote", self._handshake.remote_raw)
            observer.parameters_set("local", self._handshake.local)
        self._events.append(ProtocolNegotiated(alpn_protocol=self._handshake.alpn))

    def _apply_limits(self, remote: TransportParameters) -> None:
        self._streams.apply_limits(
            max_data=remote.initial_max_data or 0,
            bidi_local=remote.initial_max_stream_data_bidi_local or 0,
            bidi_remote=remote.initial_max_stream_data_bidi_remote or 0,
            uni=remote.initial_max_stream_data_uni or 0,
            max_bidi=remote.initial_max_streams_bidi or 0,
            max_uni=remote.initial_max_streams_uni or 0,
        )
        self._local_ids.peer_limit = remote.active_connection_id_limit or 2
        if remote.max_idle_timeout:
            self._idle.limit(remote.max_idle_timeout / 1000)

    # --- completion -----------------------------------------------------------------------------

    def _complete(self, path: Path, now: float) -> None:
        """The handshake is complete; a server also confirms it (RFC 9001 section 4.1.2)."""
        handshake = self._handshake
        engine = handshake.tls
        assert engine is not None
        if self._is_client and handshake.remembered is not None and not engine.early_data_accepted:
            # RFC 9001 section 4.6.2: the server discarded 0-RTT packets.
            self._recovery.resend_all(self._spaces[Epoch.ONE_RTT])
        self._local_ids.replenish()
        self._events.append(
            HandshakeCompleted(
                alpn_protocol=engine.alpn,
                early_data_accepted=engine.early_data_accepted,
                session_resumed=engine.resumed,
            )
        )
        if not self._is_client:
            self.confirm(now)
            token = b""
            if self._make_token is not None:
                token = self._make_token(path.address, handshake.version, now)
            self._confirmation.announce(token)

    def confirm(self, now: float) -> None:
        """The handshake is confirmed (RFC 9001 section 4.1.2); repeated calls have no effect."""
        if self._handshake.is_confirmed:
            return
        self._handshake.is_confirmed = True
        self._recovery.handshake_confirmed = True
        self._recovery.peer_validated_us = True
        self.discard(Epoch.INITIAL)
        self.discard(Epoch.HANDSHAKE)
        self._migration.on_confirmed(now)

    def discard(self, epoch: Epoch) -> None:
        """Discard keys and packet number space of an epoch (RFC 9001 section 4.9)."""
        space = self._spaces.get(epoch)
        if space is not None:
            self._handshake.discard_keys(epoch)
            self._recovery.discard(space)
            del self._spaces[epoch]

    def settle(self) -> None:
        """Release handshake-only state."""
        self.is_settled = True
        self._handshake.settle()
        if self._is_client:
            self._migration.probe_preferred_address()
