"""aioquic's server connection with less made for a handshake, and with little kept after it.

A client's handshake takes most of what a short connection costs, and what it leaves behind is most
of what an idle one weighs. So the keys of a version come when a packet of that version does, what
is alike for all connections is made once, and a confirmed handshake takes its objects with it.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, ClassVar

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic import connection as aioquic_connection
from aioquic.quic import crypto as aioquic_crypto
from aioquic.quic.connection import CRYPTO_BUFFER_SIZE, QuicConnection, QuicReceiveContext
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from quicedge.quic import parameters as params
from quicedge.quic.adapter.tls import ServerTls
from quicedge.quic.keyschedule import expand_label, extract

INITIAL, ZERO_RTT = tls.Epoch.INITIAL, tls.Epoch.ZERO_RTT
HANDSHAKE, ONE_RTT = tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT

# aioquic makes 33 of these sets for each connection, five of them different.
aioquic_connection.EPOCHS = cache(aioquic_connection.EPOCHS)
# Eight keys a pair of them, each through objects of its own.
aioquic_crypto.hkdf_expand_label = expand_label
aioquic_crypto.hkdf_extract = extract

_MAX_ACK_DELAY = 25
"""Milliseconds; aioquic's receiver does not wait longer."""
_NO_KEYS = CryptoPair()
"""Stands for the keys of epochs that are over, or did not begin: it opens and seals nothing."""
_DISCARDED = QuicPacketSpace()
_DISCARDED.discarded = True
"""Stands for the packet number spaces that are over."""

_CRYPTO_BUFFERS = {
    epoch: Buffer(capacity=CRYPTO_BUFFER_SIZE) for epoch in (INITIAL, HANDSHAKE, ONE_RTT)
}
"""What TLS writes into; empty but while a CRYPTO frame is handled, so one set serves all."""


class _InitialKeys(dict[int, CryptoPair]):
    """Initial keys by version, derived when they are first asked for."""

    def __init__(self, cid: bytes) -> None:
        self._cid = cid

    def __missing__(self, version: int) -> CryptoPair:
        pair = self[version] = CryptoPair()
        pair.setup_initial(cid=self._cid, is_client=False, version=version)
        return pair


class _NoInitialKeys(dict[int, CryptoPair]):
    """Those of any version once Initial packets are over."""

    def __missing__(self, version: int) -> CryptoPair:
        return _NO_KEYS


_NO_INITIAL_KEYS = _NoInitialKeys()


class _Handlers:
    """Frame handlers of one connection: bound when they are looked up."""

    __slots__ = ("_connection",)

    def __init__(self, connection: LeanConnection) -> None:
        self._connection = connection

    def __getitem__(self, frame_type: int) -> tuple[Any, frozenset[tls.Epoch]]:
        name, epochs = self._connection._handlers[frame_type]
        return getattr(self._connection, name), epochs


class LeanConnection(QuicConnection):
    """See the module. Clients, which only tests make, stay as aioquic has them."""

    _handlers: ClassVar[dict[int, tuple[str, frozenset[tls.Epoch]]]] = {}
    _is_light = False

    def _initialize(self, peer_cid: bytes) -> None:
        if self._is_client or self._quic_logger is not None:
            super()._initialize(peer_cid)
            return
        assert self._version is not None
        configuration = self._configuration
        self.tls = tls.Context(
            is_client=False,
            alpn_protocols=configuration.alpn_protocols,
            cipher_suites=configuration.cipher_suites,
            logger=self._logger,
            max_early_data=aioquic_connection.MAX_EARLY_DATA,
            verify_mode=configuration.verify_mode,
        )
        context = self.tls
        context.certificate = configuration.certificate
        context.certificate_chain = configuration.certificate_chain
        context.certificate_private_key = configuration.private_key
        context.handshake_extensions = [
            (tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS, self._serialize_transport_parameters())
        ]
        context.alpn_cb = self._alpn_handler
        if self._session_ticket_fetcher is not None:
            context.get_session_ticket_cb = self._session_ticket_fetcher
        if self._session_ticket_handler is not None:
            context.new_session_ticket_cb = self._handle_session_ticket
        context.update_traffic_key_cb = self._update_traffic_key

        self._cryptos_initial = _InitialKeys(peer_cid)
        self._cryptos = {
            INITIAL: self._cryptos_initial[self._version],
            ZERO_RTT: _NO_KEYS,
            HANDSHAKE: CryptoPair(),
            ONE_RTT: CryptoPair(),
        }
        self._crypto_buffers = _CRYPTO_BUFFERS
        self._crypto_streams = {
            INITIAL: QuicStream(), HANDSHAKE: QuicStream(), ONE_RTT: QuicStream(),
        }  # fmt: skip
        self._spaces = {
            INITIAL: QuicPacketSpace(),
            HANDSHAKE: QuicPacketSpace(),
            ONE_RTT: QuicPacketSpace(is_application_data=True),
        }
        self._loss.spaces = list(self._spaces.values())

    def _serialize_transport_parameters(self) -> bytes:
        if self._is_client or self._quic_logger is not None:
            return super()._serialize_transport_parameters()
        configuration = self._configuration
        assert self._version is not None
        versions = (self._version, *configuration.supported_versions)
        return params.encode_parameters(
            (
                (params.MAX_IDLE_TIMEOUT, int(configuration.idle_timeout * 1000)),
                (params.INITIAL_MAX_DATA, self._local_max_data.value),
                (
                    params.INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
                    self._local_max_stream_data_bidi_local,
                ),
                (
                    params.INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
                    self._local_max_stream_data_bidi_remote,
                ),
                (params.INITIAL_MAX_STREAM_DATA_UNI, self._local_max_stream_data_uni),
                (params.INITIAL_MAX_STREAMS_BIDI, self._local_max_streams_bidi.value),
                (params.INITIAL_MAX_STREAMS_UNI, self._local_max_streams_uni.value),
                (params.ACK_DELAY_EXPONENT, self._local_ack_delay_exponent),
                (params.MAX_ACK_DELAY, _MAX_ACK_DELAY),
                (params.ACTIVE_CONNECTION_ID_LIMIT, self._local_active_connection_id_limit),
                (params.MAX_DATAGRAM_FRAME_SIZE, configuration.max_datagram_frame_size),
                (params.VERSION_INFORMATION, struct.pack(f"!{len(versions)}I", *versions)),
                (params.STATELESS_RESET_TOKEN, self._host_cids[0].stateless_reset_token),
                (
                    params.INITIAL_SOURCE_CONNECTION_ID,
                    self._local_initial_source_connection_id,
                ),
                (
                    params.ORIGINAL_DESTINATION_CONNECTION_ID,
                    self._original_destination_connection_id,
                ),
                (params.RETRY_SOURCE_CONNECTION_ID, self._retry_source_connection_id),
            )
        )

    def _update_traffic_key(
        self,
        direction: tls.Direction,
        epoch: tls.Epoch,
        cipher_suite: tls.CipherSuite,
        secret: bytes,
    ) -> None:
        if self._cryptos[epoch] is _NO_KEYS:
            self._cryptos[epoch] = CryptoPair()
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        try:
            super()._handle_crypto_frame(context, frame_type, buf)
        finally:
            # What a failed handshake has written must not reach the next connection.
            for written in self._crypto_buffers.values():
                written.seek(0)

    def _push_crypto_data(self) -> None:
        for epoch, buf in self._crypto_buffers.items():
            if buf.tell():
                self._crypto_streams[epoch].sender.write(buf.data)
                buf.seek(0)

    def _discard_epoch(self, epoch: tls.Epoch) -> None:
        super()._discard_epoch(epoch)
        if epoch is INITIAL and not self._is_client:
            # For no version may keys be derived again.
            self._cryptos_initial = _NO_INITIAL_KEYS

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        super().receive_datagram(data, addr, now)
        # Not within: the rest of the datagram may still look at what is let go of here.
        if self._handshake_confirmed and not self._is_light and not self._is_client:
            self._is_light = True
            self._let_go_of_handshake()

    def _let_go_of_handshake(self) -> None:
        """Drop what only the handshake needed; RFC 9001 section 4.9 has its keys discarded."""
        for epoch in (INITIAL, HANDSHAKE):
            if self._spaces[epoch].discarded:
                self._spaces[epoch] = _DISCARDED
                self._cryptos[epoch] = _NO_KEYS
                self._crypto_streams.pop(epoch, None)
        self._cryptos[ZERO_RTT] = _NO_KEYS
        self._loss.spaces = list(self._spaces.values())
        self._crypto_buffers = {}
        if isinstance(self.tls, ServerTls):
            self.tls = self.tls.settled()

    @property
    def _QuicConnection__frame_handlers(self) -> _Handlers:
        return _Handlers(self)

    @_QuicConnection__frame_handlers.setter
    def _QuicConnection__frame_handlers(self, handlers: dict[int, tuple[Any, Any]]) -> None:
        # One table for all: bound methods in a table of the connection make cycles.
        if not self._handlers:
            self._handlers.update(
                {kind: (bound.__name__, epochs) for kind, (bound, epochs) in handlers.items()}
            )
