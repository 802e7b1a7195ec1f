"""Requests wait for address validation while a rule uses the address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aioquic.h3.connection import H3Connection

from quicedge.downstream.http3 import Http3Session
from quicedge.http.validation import MessageLimits
from quicedge.quic import events
from tests.support.sessions import GET, Client, StubEdge, head
from tests.support.world import NOW, World
from tests.unit.quic.test_rebinding import NEW, OLD, exchange, take


@pytest.mark.parametrize("needs_address", [True, False])
def test_a_request_waits_for_an_address_that_changed_in_the_handshake(needs_address: bool) -> None:
    world = World()
    edge: Any = StubEdge(NOW, world.endpoint.wake)
    edge.policy.needs_address = needs_address
    world.accept = lambda connection: Http3Session(connection, edge, edge)
    client = world.client(alpn_protocols=["h3"])
    first = exchange(world, client, OLD)
    # Flights went to both addresses: the handshake proves neither.
    client._loss.reschedule_data(now=NOW)
    exchange(world, client, NEW, NOW + 1)
    take(client, first, NOW + 1)
    H3Connection(client).send_headers(0, GET, end_stream=True)
    challenge = exchange(world, client, NEW, NOW + 2)
    (connection,) = world.endpoint.connections
    assert connection.handshake_complete
    assert connection.validated_path is None
    assert len(edge.at_origin) == (0 if needs_address else 1)
    take(client, challenge, NOW + 2)
    exchange(world, client, NEW, NOW + 2.1)
    assert connection.validated_path == NEW
    assert len(edge.at_origin) == 1


def test_a_websocket_never_opens_in_early_data() -> None:
    """A replayed opening handshake would open another tunnel: CONNECT waits for the handshake."""
    client = Client()
    client.edge.message_limits = MessageLimits(extended_connect=True)
    client.edge.early_data = SimpleNamespace(is_first=lambda use, on_first: True)
    client.connection.handshake_complete = False
    client.connection.early_data_use = None  # type: ignore[attr-defined]
    client.ask(head(GET))
    assert len(client.edge.at_origin) == 1, "safe requests run"
    connect = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
    client.ask(head(connect), end=False)
    assert len(client.edge.at_origin) == 1
    client.connection.handshake_complete = True
    client.session.handle_event(events.HandshakeCompleted("h3", True, True))
    assert client.edge.at_origin[-1].request.protocol == b"websocket"
