"""What this endpoint brings to a handshake: its TLS engine and its transport parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aioquic.quic.configuration import QuicConfiguration

from quicedge.client_auth.rules import ClientAuth
from quicedge.config.limits import (
    ACK_DELAY_EXPONENT,
    ACTIVE_CONNECTION_IDS,
    MAX_ACK_DELAY,
)
from quicedge.quic.anti_replay import EarlyDataGuard
from quicedge.quic.connection.connection_ids import LocalConnectionIds
from quicedge.quic.key_exchange import Group
from quicedge.quic.tickets import Tickets
from quicedge.quic.tls import CertificateStore
from quicedge.quic.tls_client import ClientTls, TicketHandler
from quicedge.quic.tls_server import ServerTls, TlsHooks
from quicedge.quic.transport_parameters import (
    PreferredAddress,
    PreferredAddressParameter,
    TransportParameters,
)


class Offer:
    """The offer of one connection, client or server. `Handshake` calls both methods."""

    __slots__ = (
        "_certificates", "_client_auth", "_configuration", "_early_data", "_groups",
        "_local_ids", "_max_streams", "_preferred_address", "_random",
        "_ticket_handler", "_tickets",
    )  # fmt: skip

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        local_ids: LocalConnectionIds,
        max_streams: tuple[int, int],
        random: Callable[[int], bytes],
        certificates: CertificateStore | None,
        groups: Sequence[Group],
        tickets: Tickets | None,
        early_data: tuple[EarlyDataGuard, bytes] | None,
        client_auth: ClientAuth | None,
        preferred_address: PreferredAddress | None,
        ticket_handler: TicketHandler | None,
    ) -> None:
        """`max_streams`: bidirectional and unidirectional streams that the peer may open first."""
        self._configuration = configuration
        self._local_ids = local_ids
        self._max_streams = max_streams
        self._random = random
        self._certificates = certificates
        self._groups = groups
        self._tickets = tickets
        self._early_data = early_data
        self._client_auth = client_auth
        self._preferred_address = preferred_address
        self._ticket_handler = ticket_handler

    def make_client_tls(self, hooks: TlsHooks, parameters: bytes) -> ClientTls:
        return ClientTls(hooks, self._configuration, parameters, self._ticket_handler)

    def make_server_tls(self, hooks: TlsHooks) -> ServerTls:
        assert self._certificates is not None
        return ServerTls(
            hooks,
            certificates=self._certificates,
            alpn_protocols=self._configuration.alpn_protocols or [],
            cipher_suites=self._configuration.cipher_suites,
            groups=self._groups,
            random=self._random,
            tickets=self._tickets,
            early_data=self._early_data,
            client_auth=self._client_auth,
        )

    def make_parameters(self) -> TransportParameters:
        """Our transport parameters, without those that `Handshake` fills in."""
        configuration, local_ids = self._configuration, self._local_ids
        window = configuration.max_stream_data
        parameters = TransportParameters(
            max_idle_timeout=int(configuration.idle_timeout * 1000),
            initial_max_data=configuration.max_data,
            initial_max_stream_data_bidi_local=window,
            initial_max_stream_data_bidi_remote=window,
            initial_max_stream_data_uni=window,
            initial_max_streams_bidi=self._max_streams[0],
            initial_max_streams_uni=self._max_streams[1],
            ack_delay_exponent=ACK_DELAY_EXPONENT,
            max_ack_delay=MAX_ACK_DELAY,
            active_connection_id_limit=ACTIVE_CONNECTION_IDS,
            max_datagram_frame_size=configuration.max_datagram_frame_size,
            initial_source_connection_id=local_ids.initial,
        )
        if configuration.is_client:
            return parameters
        parameters.stateless_reset_token = local_ids.reset_token(local_ids.initial)
        if self._preferred_address is not None:
            # RFC 9000 section 5.1.1: the sequence number of this connection ID is 1.
            cid = local_ids.issue_unframed()
            parameters.preferred_address = PreferredAddressParameter(
                *self._preferred_address, cid, local_ids.reset_token(cid)
            )
        return parameters
