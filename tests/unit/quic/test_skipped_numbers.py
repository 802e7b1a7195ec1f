"""Packet numbers left out on purpose: honest peers never notice, others are found out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode

from quicedge.quic.frames import Epoch
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair

SIZE = 2_000_000


def connected(**links: Any) -> Pair:
    pair = make_pair(**links)
    server, client = pair.server.connection, pair.client.connection
    pair.run(lambda: bool(server.handshake_confirmed and client._handshake_confirmed))
    client.send_stream_data(0, b"?")
    pair.run(lambda: 0 in server.streams)
    return pair


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_an_honest_peer_never_notices(loss: float) -> None:
    random.seed(1)
    pair = connected(down=Link(loss=loss))
    server = pair.server.connection
    received = 0

    def count(event: object) -> None:
        nonlocal received
        received += len(event.data) if isinstance(event, StreamDataReceived) else 0

    pair.client.on_event = count
    server.send_stream_data(0, bytes(SIZE))
    pair.run(lambda: received == SIZE and server.recovery.bytes_in_flight == 0)
    assert server.skipper.count >= 2
    if not loss:
        # What is not there is not lost.
        assert server.recovery.packets_lost == 0


def test_a_peer_that_acknowledges_what_was_never_sent_is_closed() -> None:
    pair = connected()
    server, client = pair.server.connection, pair.client.connection
    server.skipper.at = server.spaces[Epoch.ONE_RTT].next_number
    server.send_stream_data(0, bytes(5000))
    space = next(space for space in client._loss.spaces if space.is_application_data)

    def pretend(event: object) -> None:
        if server.skipper.skipped:
            space.ack_queue.add(server.skipper.skipped[0])

    pair.client.on_event = pretend
    pair.run(lambda: server.close_event is not None)
    event = server.close_event
    assert isinstance(event, ConnectionTerminated)
    assert event.error_code == QuicErrorCode.PROTOCOL_VIOLATION
    assert event.reason_phrase == "ACK of a packet that was never sent"
