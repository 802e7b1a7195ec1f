"""What is said of how a connection ended, and of how far a stream's data has come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quicedge.downstream.close_reason import close_reason
from quicedge.qlog.validate import validate
from quicedge.quic.connection import Connection
from quicedge.quic.ending import Delivery, Ending
from quicedge.telemetry.trace import Trace
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair, datagrams

IDLE = 5.0


class File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def write(self, lines: bytes) -> bool:
        with self.path.open("ab") as file:
            file.write(lines)
        return True

    def close(self) -> None: ...


def connected(**options: Any) -> Pair:
    pair = make_pair(Link(delay=0.02), Link(delay=0.02), server_options={"idle_timeout": IDLE},
                     **options)  # fmt: skip
    server = pair.server.connection
    pair.run(lambda: server.handshake_confirmed and pair.client.connection._handshake_confirmed)
    pair.client.connection.send_stream_data(0, b"?", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == 1)
    return pair


def vanish(pair: Pair) -> None:
    """Nothing of the client arrives any more."""
    pair.up.loss = 1.0
    pair.run(lambda: pair.server.connection.is_terminated, limit=60)


def close_from_client(pair: Pair, **options: Any) -> None:
    pair.client.connection.close(**options)
    pair.run(lambda: pair.server.connection.is_terminated)


def close_from_server(pair: Pair, **options: Any) -> None:
    pair.server.connection.close(**options)
    pair.run(lambda: pair.server.connection.is_terminated)


H3_INTERNAL: dict[str, Any] = {"error_code": 0x102, "reason_phrase": "broken"}
TRANSPORT: dict[str, Any] = {"error_code": 0x3, "frame_type": 8, "reason_phrase": "too much"}

ENDS: dict[str, tuple[Callable[[Pair], None], Ending, str, dict[str, Any]]] = {
    "idle": (
        vanish, Ending.IDLE_TIMEOUT, "idle timeout",
        {"initiator": "local", "trigger": "idle_timeout", "reason": "Idle timeout"},
    ),
    "peer": (
        lambda pair: close_from_client(pair, **H3_INTERNAL), Ending.PEER_CLOSE,
        "closed by the peer: H3_INTERNAL_ERROR broken",
        {"initiator": "remote", "trigger": "application", "application_error": "unknown",
         "error_code": 0x102, "reason": "broken"},
    ),
    "local": (
        lambda pair: close_from_server(pair, **H3_INTERNAL), Ending.LOCAL_CLOSE,
        "closed by us: H3_INTERNAL_ERROR broken",
        {"initiator": "local", "trigger": "application", "application_error": "unknown",
         "error_code": 0x102, "reason": "broken"},
    ),
    "transport": (
        lambda pair: close_from_server(pair, **TRANSPORT), Ending.LOCAL_CLOSE,
        "closed by us: FLOW_CONTROL_ERROR too much",
        {"initiator": "local", "trigger": "error", "connection_error": "flow_control_error",
         "error_code": 3, "reason": "too much"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_trace_and_statistics_name_who_ended_the_connection(name: str, tmp_path: Path) -> None:
    end, ending, reason, expected = ENDS[name]
    path = tmp_path / "end.sqlog"
    pair = connected()
    server: Connection = pair.server.connection
    server.start_trace(
        Trace(File(path), level="extra", group_id="aa", started=pair.now, wall_clock=1.7e9)
    )
    assert server.ending is None
    assert close_reason(server) is None
    end(pair)
    assert server.ending is ending
    assert close_reason(server) == reason
    events = [json.loads(line) for line in path.read_bytes().split(b"\x1e")[1:]]
    assert [e["data"] for e in events if e.get("name") == "quic:connection_closed"] == [expected]
    assert not validate(path).errors


def test_an_unanswered_handshake_ends_by_its_timeout() -> None:
    pair = make_pair(Link(), Link())
    pair.transmit()
    pair.step()
    pair.up.loss = 1.0
    pair.run(lambda: pair.server.connection.is_terminated, limit=60)
    assert pair.server.connection.ending is Ending.HANDSHAKE_TIMEOUT


def test_streams_opened_only_by_a_higher_number_owe_no_response() -> None:
    """They would otherwise keep a draining connection until its idle timeout."""
    pair = connected()  # the client has opened stream 0
    client, server = pair.client.connection, pair.server.connection
    client.send_stream_data(12, b"?", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == 4)
    for stream_id in (0, 12):
        assert not server.streams.responses_delivered
        server.send_stream_data(stream_id, b"!", end_stream=True)
        pair.run(lambda s=stream_id: server.streams.delivery(s) is Delivery.DELIVERED)
    assert server.streams.responses_delivered


def test_open_streams_are_those_the_client_opened() -> None:
    """The control and QPACK streams of both sides are no streams of the client's requests."""
    pair = connected()
    client, server = pair.client.connection, pair.server.connection
    for _ in range(3):
        server.send_stream_data(server.get_next_available_stream_id(is_unidirectional=True), b"\0")
        client.send_stream_data(client.get_next_available_stream_id(is_unidirectional=True), b"\0")
    pair.run(lambda: len(server.streams) == 7)
    assert (server.streams.peer_bidi_open, server.streams.peer_bidi.opened) == (1, 1)
    server.send_stream_data(0, b"!", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi_open == 0)
    assert server.streams.peer_bidi.opened == 1


def test_delivery_follows_a_response_to_its_last_acknowledged_byte() -> None:
    pair = connected()
    server = pair.server.connection
    assert server.streams.delivery(0) is Delivery.OPEN
    server.send_stream_data(0, bytes(200_000), end_stream=True)
    assert server.streams.delivery(0) is Delivery.QUEUED
    assert server.streams.unacknowledged(0) == 200_000
    pair.run(lambda: server.streams.delivery(0) is Delivery.IN_FLIGHT)
    assert 0 < server.streams.unacknowledged(0) < 200_000
    assert server.streams.can_reset(0)
    assert server.streams.delivered([0]) == []
    pair.run(lambda: server.streams.delivery(0) is Delivery.DELIVERED)
    assert server.streams.delivered([0]) == [0]
    assert server.streams.unacknowledged(0) == 0
    assert not server.streams.can_reset(0)


def test_a_lost_end_is_queued_again() -> None:
    pair = connected()
    server = pair.server.connection
    server.send_stream_data(0, b"x" * 5000)
    pair.run(lambda: server.streams.unacknowledged(0) == 0)
    pair.down.loss = 1.0
    server.send_stream_data(0, b"", end_stream=True)
    pair.transmit()
    assert server.streams.delivery(0) is Delivery.IN_FLIGHT
    pair.down.loss = 0.0
    pair.run(lambda: server.streams.delivery(0) is Delivery.DELIVERED)


def test_a_complete_response_can_still_be_reset() -> None:
    pair = connected(client_options={"max_stream_data": 1000})
    server = pair.server.connection
    server.send_stream_data(0, bytes(50_000), end_stream=True)
    pair.transmit()
    assert not server.streams.can_send(0)
    assert server.streams.can_reset(0)
    server.reset_stream(0, 0x10C)
    assert server.streams.delivery(0) is Delivery.RESET
    assert server.streams.delivered([0]) == []
    pair.run(lambda: server.streams.peer_bidi_open == 0)


def test_a_close_behind_packets_of_the_handshake_is_heard() -> None:
    # The client closes before it knows that the handshake is confirmed, in packets of every epoch;
    # the server has no keys any more for the first ones of the datagram.
    pair = make_pair()
    client, server = pair.client.connection, pair.server.connection
    while not server.handshake_confirmed:
        pair.step()
    assert not client._handshake_confirmed
    client.close()
    (datagram,) = datagrams(client, pair.now)
    assert datagram[0] & 0x80
    server.receive_datagram(datagram, pair.client.address, pair.now)
    assert server.ending is Ending.PEER_CLOSE
