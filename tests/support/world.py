"""An endpoint that stock aioquic clients talk to, datagram by datagram, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent

from quicedge.config.schema import Quic
from quicedge.quic.admission import Admission
from quicedge.quic.connection import Connection, ConnectionHandler
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.endpoint import Endpoint, EndpointSettings
from quicedge.quic.tls import CertificateStore
from quicedge.shares.connections import ConnectionRules, Connections
from quicedge.udp.connection_id_layout import PLAIN, ConnectionIdLayout
from tests.support.quicpair import SECRET, client_configuration, server_configuration, store

NOW = 5000.0


class Path(NamedTuple):
    remote: tuple[str, int]


CLIENT = Path(("192.0.2.7", 40000))


@dataclass
class Network:
    """Keeps what is sent, by path."""

    sent: list[tuple[bytes, Path]] = field(default_factory=list)

    def send(self, datagrams: list[bytes], path: Path, ecn: int = 0) -> None:
        self.sent += [(data, path) for data in datagrams]

    def send_segments(self, data: bytes, segment: int, path: Path, ecn: int = 0) -> None:
        self.send([data[at : at + segment] for at in range(0, len(data), segment)], path)

    def take(self) -> list[bytes]:
        datagrams = [data for data, _ in self.sent]
        self.sent.clear()
        return datagrams


@dataclass
class Handler:
    events: list[QuicEvent] = field(default_factory=list)
    fail: bool = False

    def handle_event(self, event: QuicEvent) -> None:
        self.events.append(event)
        if self.fail and isinstance(event, HandshakeCompleted):
            raise RuntimeError("a fault of ours")

    def after_transmit(self) -> None:
        pass


def admission(**rules: Any) -> Admission:
    """Admission by rules of QUIC and of all protocols."""
    own = {name: rules.pop(name) for name in Quic.__struct_fields__ if name in rules}
    return Admission(msgspec.convert(own, Quic), Connections(ConnectionRules(**rules)))


class World:
    """An endpoint and stock aioquic clients."""

    def __init__(
        self,
        certificates: CertificateStore | None = None,
        *,
        secret: bytes = SECRET,
        early_data: bytes | None = None,
        layout: ConnectionIdLayout = PLAIN,
        **rules: Any,
    ) -> None:
        self.network = Network()
        self.handlers: list[Handler] = []
        self.fail_next = False
        self.accept: Callable[[Connection], ConnectionHandler] = self._make_handler
        """Makes the handler of each new connection."""
        options = {"retry": "off", "retry_threshold": 10, "max_half_open": 20, **rules}
        self.endpoint = Endpoint(
            EndpointSettings(
                configuration=server_configuration(max_datagram_size=1200),
                quic=Quic(handshake_timeout=10, max_streams=100, max_datagram_size=1472),
                early_data_terms=early_data,
            ),
            admission=admission(**options),
            certificates=certificates or store(),
            connection_ids=ConnectionIdIssuer(slot=3, secret=secret, layout=layout),
            secret=secret,
            network=self.network,
            accept=lambda connection: self.accept(connection),
        )

    def _make_handler(self, connection: Connection) -> Handler:
        handler = Handler(fail=self.fail_next)
        self.handlers.append(handler)
        return handler

    def turn(self, now: float = NOW) -> None:
        """Finish the event loop iteration, and those that waiting datagrams need."""
        self.endpoint.flush(now)
        while self.endpoint.waiting:
            self.endpoint.receive_waiting(now)
            self.endpoint.flush(now)

    def receive(self, *datagrams: bytes, path: Path = CLIENT, now: float = NOW) -> list[bytes]:
        """Hand datagrams in; what goes out at once."""
        for data in datagrams:
            self.endpoint.receive(data, path, now)
        self.endpoint.flush(now)
        return self.network.take()

    def client(self, **options: Any) -> QuicConnection:
        """A client about to connect; the last ticket and token it is given are kept on it."""
        handlers = {
            "session_ticket_handler": lambda ticket: setattr(client, "last_ticket", ticket),
            "token_handler": lambda token: setattr(client, "last_token", token),
        }
        configuration = client_configuration(**options)
        client = QuicConnection(configuration=configuration, **handlers)
        client.last_ticket = client.last_token = None  # type: ignore[attr-defined]
        client.connect(("server", 443), NOW)
        return client

    def talk(
        self, client: QuicConnection, path: Path = CLIENT, rounds: int = 6, now: float = NOW
    ) -> None:
        for _ in range(rounds):
            for data, _ in client.datagrams_to_send(now):
                self.endpoint.receive(data, path, now)
            self.endpoint.flush(now)
            for data in self.network.take():
                client.receive_datagram(data, ("server", 443), now)


def first_flight(client: QuicConnection) -> list[bytes]:
    return [data for data, _ in client.datagrams_to_send(NOW)]


def is_connected(client: QuicConnection) -> bool:
    while (event := client.next_event()) is not None:
        if isinstance(event, HandshakeCompleted):
            return True
    return False
