"""A misbehaving client: stock aioquic with arbitrary frames, parameters and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import (
    QuicPacketType,
    encode_long_header_first_byte,
    push_quic_transport_parameters,
)

from quicedge.quic.connection import Connection
from quicedge.quic.frames import encode_varint
from tests.support.world import CLIENT, NOW, World

_LONG = {
    tls.Epoch.INITIAL: QuicPacketType.INITIAL,
    tls.Epoch.ZERO_RTT: QuicPacketType.ZERO_RTT,
    tls.Epoch.HANDSHAKE: QuicPacketType.HANDSHAKE,
}


def varints(*values: int) -> bytes:
    return b"".join(map(encode_varint, values))


class Hostile:
    """A client and the server's connection it has, or is about to have."""

    def __init__(self, *, early_data: bytes | None = None, **options: Any) -> None:
        self.world = World(early_data=early_data)
        self.client: QuicConnection = self.world.client(**options)
        self.server: Connection
        """The server's side, which exists from the first packet on."""

    def connect(self) -> Hostile:
        """Shake hands as one should."""
        self.world.talk(self.client)
        (self.server,) = self.world.endpoint.connections
        assert self.server.handshake_complete
        return self

    def greet(self) -> Hostile:
        """Send the first flight alone, and take what comes back."""
        for data, _ in self.client.datagrams_to_send(NOW):
            self.world.endpoint.receive(data, CLIENT, NOW)
        (self.server,) = self.world.endpoint.connections
        self.world.endpoint.flush(NOW)
        return self

    def packet(
        self, payload: bytes, epoch: tls.Epoch = tls.Epoch.ONE_RTT, *, reserved: int = 0
    ) -> bytes:
        """A datagram of one packet with these frames, sealed with the client's keys."""
        client = self.client
        version = client._version or 0
        crypto = (
            client._cryptos_initial[version]
            if epoch is tls.Epoch.INITIAL
            else client._cryptos[epoch]
        )
        number = client._packet_number
        client._packet_number += 1
        payload = payload.ljust(4, b"\0") if payload else payload
        if epoch is tls.Epoch.ONE_RTT:
            first = 0x40 | reserved | crypto.key_phase << 2 | 1
            header = bytes((first,)) + client._peer_cid.cid
        else:
            if epoch is tls.Epoch.INITIAL:
                payload = payload.ljust(1170, b"\0")
            first = encode_long_header_first_byte(version, _LONG[epoch], 1) | reserved
            header = bytes((first,)) + version.to_bytes(4, "big")
            header += bytes((len(client._peer_cid.cid),)) + client._peer_cid.cid
            header += bytes((len(client.host_cid),)) + client.host_cid
            if epoch is tls.Epoch.INITIAL:
                header += b"\0"
            header += (len(payload) + 2 + 16 | 0x4000).to_bytes(2, "big")
        header += (number & 0xFFFF).to_bytes(2, "big")
        return crypto.send.encrypt_packet(header, payload, number)

    def send(
        self, payload: bytes, epoch: tls.Epoch = tls.Epoch.ONE_RTT, *, reserved: int = 0
    ) -> Hostile:
        """Send such a packet to the server."""
        self.world.endpoint.receive(self.packet(payload, epoch, reserved=reserved), CLIENT, NOW)
        self.world.endpoint.flush(NOW)
        return self

    def send_first(self, payload: bytes) -> Hostile:
        """Send an Initial packet that is the first of all."""
        self.world.endpoint.receive(self.packet(payload, tls.Epoch.INITIAL), CLIENT, NOW)
        (self.server,) = self.world.endpoint.half_open
        self.world.endpoint.flush(NOW)
        return self

    @property
    def verdict(self) -> int | None:
        """The error code that the server closed the connection with; None while it lives."""
        event = self.server.close_event
        return None if event is None else event.error_code


def with_parameters(change: Callable[[Any], None] | None = None, raw: bytes = b"") -> Hostile:
    """A client whose transport parameters were changed, or have `raw` behind them."""
    hostile = Hostile()
    client = hostile.client

    def serialize() -> bytes:
        from aioquic.quic.packet import pull_quic_transport_parameters

        parameters = pull_quic_transport_parameters(Buffer(data=original()))
        if change is not None:
            change(parameters)
        buf = Buffer(capacity=2000)
        push_quic_transport_parameters(buf, parameters)
        return buf.data + raw

    original = client._serialize_transport_parameters
    # The first flight was built by `connect`: build it again.
    fresh = QuicConnection(configuration=client.configuration)
    original = fresh._serialize_transport_parameters
    fresh._serialize_transport_parameters = serialize  # type: ignore[method-assign]
    fresh.connect(("server", 443), NOW)
    hostile.client = fresh
    return hostile
