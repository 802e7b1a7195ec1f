"""The client side of TLS 1.3: aioquic's engine through its public interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration

from quicedge.client_auth.rules import Identity
from quicedge.client_auth.verdict import RefusedError
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import Epoch, FrameType
from quicedge.quic.key_exchange import Group
from quicedge.quic.tls_server import (
    MAX_EARLY_DATA,
    QUIC_TRANSPORT_PARAMETERS,
    Messages,
    TlsHooks,
)

_BUFFER_SIZE = 16384
_COMPLETE = tls.State.CLIENT_POST_HANDSHAKE

TicketHandler = Callable[[tls.SessionTicket], None]


class ClientTls:
    """One handshake: `start`, then `receive` CRYPTO data."""

    server_name: str | None = None
    certificate: Any = None
    group: Group | None = None
    hello_retried = False
    compression: str | None = None
    identity: Identity | None = None
    refused: RefusedError | None = None
    signature: str | None = None
    early_data_use = None
    alpn_offered: list[bytes] | None = None

    def __init__(
        self,
        hooks: TlsHooks,
        configuration: QuicConfiguration,
        parameters: bytes,
        ticket_handler: TicketHandler | None,
    ) -> None:
        self._hooks = hooks
        self._context = context = tls.Context(
            is_client=True,
            alpn_protocols=configuration.alpn_protocols,
            cadata=configuration.cadata,
            cafile=configuration.cafile,
            capath=configuration.capath,
            cipher_suites=configuration.cipher_suites,
            server_name=configuration.server_name,
            verify_mode=configuration.verify_mode,
        )
        context.handshake_extensions = [(QUIC_TRANSPORT_PARAMETERS, parameters)]
        context.alpn_cb = self._on_alpn
        context.update_traffic_key_cb = self._on_traffic_key
        self.session = ticket = _usable(configuration)
        """The ticket offered for resumption."""
        context.session_ticket = ticket
        if ticket_handler is not None:
            self._ticket_handler = ticket_handler
            context.new_session_ticket_cb = self._on_ticket
        self._buffers = {
            epoch: Buffer(capacity=_BUFFER_SIZE)
            for epoch in (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT)
        }

    def start(self) -> Messages:
        """The ClientHello."""
        self._context.handle_message(b"", self._buffers)
        return self._take()

    def receive(self, epoch: Epoch, data: bytes, now: float) -> Messages:
        """Take CRYPTO data of an epoch, in order; raises `aioquic.tls.Alert`."""
        self._context.handle_message(data, self._buffers)
        return self._take()

    def _take(self) -> Messages:
        out: Messages = []
        for epoch, buf in self._buffers.items():
            if buf.tell():
                out.append((Epoch(epoch.value), buf.data))
                buf.seek(0)
        return out

    @property
    def awaits_server_hello(self) -> bool:
        return self._context.state is tls.State.CLIENT_EXPECT_SERVER_HELLO

    @property
    def is_complete(self) -> bool:
        return self._context.state is _COMPLETE

    @property
    def client_random(self) -> bytes:
        random = self._context.client_random
        assert random is not None
        return random

    @property
    def alpn(self) -> str | None:
        return self._context.alpn_negotiated

    @property
    def resumed(self) -> bool:
        return self._context.session_resumed

    @property
    def early_data_accepted(self) -> bool:
        return self._context.early_data_accepted

    def _on_alpn(self, alpn: str | None) -> None:
        extensions = dict(self._context.received_extensions or ())
        self._hooks.on_peer_parameters(extensions.get(QUIC_TRANSPORT_PARAMETERS), alpn)

    def _on_traffic_key(
        self, direction: tls.Direction, epoch: tls.Epoch, suite: tls.CipherSuite, secret: bytes
    ) -> None:
        sending = direction is tls.Direction.ENCRYPT
        self._hooks.on_secret(Epoch(epoch.value), suite, secret, sending=sending)

    def _on_ticket(self, ticket: tls.SessionTicket) -> None:
        if ticket.max_early_data_size not in (None, MAX_EARLY_DATA):
            raise TransportError(
                ErrorCode.PROTOCOL_VIOLATION, FrameType.CRYPTO, "Invalid max_early_data_size"
            )
        self._ticket_handler(ticket)


def _usable(configuration: QuicConfiguration) -> tls.SessionTicket | None:
    ticket = configuration.session_ticket
    if ticket is None or not ticket.is_valid or ticket.server_name != configuration.server_name:
        return None
    return ticket


def remembered_parameters(ticket: tls.SessionTicket | None) -> bytes | None:
    """Transport parameters of the resumed session, if 0-RTT data may be sent."""
    if ticket is None or ticket.max_early_data_size != MAX_EARLY_DATA:
        return None
    return dict(ticket.other_extensions).get(QUIC_TRANSPORT_PARAMETERS)
