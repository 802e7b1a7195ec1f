"""Clients that were here before: what they bring along, and what they are given for next time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder

from quicedge.quic.adapter.receiving import ReceivingConnection
from quicedge.quic.adapter.tls import ServerTls
from quicedge.quic.strikes import EarlyDataGuard, EarlyDataUse
from quicedge.quic.tickets import Tickets

_NEW_TOKEN_HEAD = 3
"""Bytes of a NEW_TOKEN frame before its token: the type and a length of two bytes at most."""


class ReturningConnection(ReceivingConnection):
    """A connection with session tickets (RFC 8446 section 4.6.1) and tokens (RFC 9000 section 8).

    `address_validated`: the first Initial bore a token of ours for the address it came from.
    `make_token` gives the token of a path, a QUIC version and a time; the client is sent one.
    `early_data`: who judges 0-RTT data, and its stamp in tickets; None: none is taken.
    """

    def __init__(
        self,
        *,
        tickets: Tickets | None = None,
        address_validated: bool = False,
        make_token: Callable[[Any, int, float], bytes] | None = None,
        early_data: tuple[EarlyDataGuard, bytes] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._tickets = tickets
        self._address_validated = address_validated
        self._make_token = make_token
        self._early_data = early_data

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self._tickets is not None and isinstance(self.tls, ServerTls):
            self.tls.issue_tickets(
                self._tickets, lambda: self._now, lambda: self._crypto_packet_version
            )
            if self._early_data is not None:
                self.tls.take_early_data(*self._early_data)
        if self._address_validated:
            # RFC 9000 section 8.1: no limit of three times what it sent holds for this client.
            self._network_paths[0].is_validated = True

    def _update_traffic_key(
        self,
        direction: tls.Direction,
        epoch: tls.Epoch,
        cipher_suite: tls.CipherSuite,
        secret: bytes,
    ) -> None:
        # aioquic's TLS hands out the key of early data that was offered; without it, 0-RTT
        # packets are dropped.
        if epoch is tls.Epoch.ZERO_RTT and not self._is_client and not self.tls.early_data_accepted:
            return
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)

    def _write_handshake_done_frame(self, builder: QuicPacketBuilder) -> None:
        super()._write_handshake_done_frame(builder)
        if self._make_token is None:
            return
        # In the packet of HANDSHAKE_DONE: lost with it, the token is written again with it.
        token = self._make_token(self._network_paths[0].addr, self.version, self._now)
        buf = builder.start_frame(QuicFrameType.NEW_TOKEN, capacity=_NEW_TOKEN_HEAD + len(token))
        buf.push_uint_var(len(token))
        buf.push_bytes(token)
        if self._quic_logger is not None and builder.quic_logger_frames is not None:
            builder.quic_logger_frames.append(self._quic_logger.encode_new_token_frame(token))

    @property
    def token_accepted(self) -> bool:
        """Whether the first Initial proved the client's address."""
        return self._address_validated

    @property
    def early_data_accepted(self) -> bool:
        """Whether 0-RTT data was taken."""
        context = getattr(self, "tls", None)
        return bool(context is not None and context.early_data_accepted)

    @property
    def early_data_use(self) -> EarlyDataUse | None:
        """The ticket that 0-RTT data came under; None without, or once the client is proven."""
        if self._handshake_complete or not isinstance(self.tls, ServerTls):
            return None
        return self.tls.early_data_use

    @property
    def validated_path(self) -> Any | None:
        """The network path in use once its address is validated, else the last validated one.

        None before the handshake is complete: until then the client's first flight, with its
        token and its early data, may all be a copy that somebody else sends.
        """
        if not self._handshake_complete:
            return None
        return super().validated_path
