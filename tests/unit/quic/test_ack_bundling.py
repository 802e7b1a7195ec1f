"""A pending ACK rides on whatever ack-eliciting packet leaves next (RFC 9000 section 13.2.1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aioquic.quic.events import StreamDataReceived

from quicedge.config.limits import ACK_DELAY, LONE_ACK_DELAY, MAX_ACK_DELAY, MTU_PROBE_AFTER
from quicedge.quic.connection import Connection, Transmit
from quicedge.quic.frames import Epoch
from quicedge.telemetry.trace import Trace
from tests.support.quicpair import CLIENT_ADDRESS, SERVER_ADDRESS, make_pair
from tests.support.simnet import Pair, datagrams, transmit
from tests.unit.quic.test_tracing import File


def confirmed_pair(*, own_client: bool = True, settled: bool = True) -> Pair:
    """A pair that has shaken hands; `settled`: with nothing left to send or to acknowledge."""
    pair = make_pair(own_client=own_client, mtu_ceiling=1452)
    client, server = pair.client.connection, pair.server.connection
    if own_client:
        # A skipped number would look like a loss, which is acknowledged promptly.
        client.skipper.at = 1 << 60
    pair.run(
        lambda: (
            (client.handshake_confirmed if own_client else client._handshake_confirmed)
            and server.handshake_confirmed
        )
    )
    if settled:
        # As after a transfer.
        server.paths.active.bytes_sent += MTU_PROBE_AFTER
        client.send_ping(0)
        pair.run(lambda: server.max_datagram_size == 1452)
        end = pair.now + 1
        while pair.step(end):
            pass
    return pair


def receive_something(pair: Pair) -> None:
    """Give the server one ack-eliciting packet that it has not acknowledged."""
    client, server = pair.client.connection, pair.server.connection
    client.send_stream_data(client.get_next_available_stream_id(), b"request", end_stream=True)
    for data in datagrams(client, pair.now):
        server.receive_datagram(data, CLIENT_ADDRESS, pair.now)
    assert client.recovery.bytes_in_flight > 0


def deliver(pair: Pair, sent: list[tuple[bytes, object, int]]) -> None:
    for data, *_ in sent:
        pair.client.connection.receive_datagram(data, SERVER_ADDRESS, pair.now + 0.01)


def test_a_request_and_its_response_take_one_datagram_each_way() -> None:
    pair = confirmed_pair(own_client=False)
    client, server = pair.client.connection, pair.server.connection
    answered = sent = 0

    def respond(event: object) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            server.send_stream_data(event.stream_id, b"response", end_stream=True)

    def count(event: object) -> None:
        nonlocal answered
        answered += isinstance(event, StreamDataReceived) and event.end_stream

    transmit = server.poll_transmit

    def counting(now: float) -> list[Transmit]:
        nonlocal sent
        runs: list[Transmit] = transmit(now)
        sent += sum(-(-len(run.data) // run.segment) for run in runs)
        return runs

    server.poll_transmit = counting
    pair.server.on_event, pair.client.on_event = respond, count
    requests = 200
    for number in range(requests):
        stream_id = client.get_next_available_stream_id()
        client.send_stream_data(stream_id, b"request", end_stream=True)
        pair.run(lambda wanted=number + 1: answered == wanted)
    # MAX_STREAMS now and then; an ACK never alone.
    assert sent <= 1.05 * requests


def send_ping(server: Connection) -> None:
    server.send_ping(1)


def send_stop(server: Connection) -> None:
    server.stop_stream(0, 7)


def send_reset(server: Connection) -> None:
    server.reset_stream(0, 7)


def send_credit(server: Connection) -> None:
    server.streams.window.granted += 1 << 30


def send_response(server: Connection) -> None:
    server.send_stream_data(0, b"response")


def send_probe(server: Connection) -> None:
    server.recovery.probe(server.spaces[Epoch.ONE_RTT])


@pytest.mark.parametrize(
    "send", [send_ping, send_stop, send_reset, send_credit, send_response, send_probe]
)
def test_what_is_sent_takes_the_pending_ack_along(send: Callable[[Connection], None]) -> None:
    pair = confirmed_pair()
    client, server = pair.client.connection, pair.server.connection
    receive_something(pair)
    assert transmit(server, pair.now) == []  # an ACK by itself waits for its timer
    send(server)
    sent = transmit(server, pair.now)
    deliver(pair, sent[:1])
    assert client.recovery.bytes_in_flight == 0
    assert not transmit(server, pair.now + LONE_ACK_DELAY)


def send(pair: Pair, packets: int, *, lost: int = 0) -> None:
    """The client sends ack-eliciting packets, of which the first ones may be lost."""
    client, server = pair.client.connection, pair.server.connection
    sent = []
    for number in range(packets + lost):
        client.send_ping(number)
        sent += datagrams(client, pair.now)
    assert len(sent) == packets + lost
    for data in sent[lost:]:
        server.receive_datagram(data, CLIENT_ADDRESS, pair.now)


def test_a_lone_packet_is_acknowledged_within_what_is_declared() -> None:
    """Its response may take a while; the ACK waits for that, but not for long."""
    pair = confirmed_pair()
    server = pair.server.connection
    send(pair, 1)
    assert transmit(server, pair.now + 10 * ACK_DELAY) == []
    due = server.poll_timeout()
    assert due == pytest.approx(pair.now + LONE_ACK_DELAY)
    assert LONE_ACK_DELAY < MAX_ACK_DELAY / 1000
    deliver(pair, transmit(server, due))
    assert pair.client.connection.recovery.bytes_in_flight == 0


@pytest.mark.parametrize(("packets", "lost"), [(2, 0), (9, 0), (1, 1)])
def test_a_second_packet_or_a_gap_is_acknowledged_promptly(packets: int, lost: int) -> None:
    pair = confirmed_pair()
    server = pair.server.connection
    send(pair, packets, lost=lost)
    due = server.poll_timeout()
    assert due == pytest.approx(pair.now + ACK_DELAY)
    assert transmit(server, due)


def test_acks_of_the_peer_do_not_hurry_the_ack_of_a_lone_packet() -> None:
    pair = confirmed_pair()
    client, server = pair.client.connection, pair.server.connection
    run = []
    for number in range(3):
        server.send_ping(number)
        deliver(pair, transmit(server, pair.now))
        run += datagrams(client, pair.now + 0.1)
    assert len(run) == 3  # none of them elicits an ACK
    client.send_ping(9)
    run += datagrams(client, pair.now + 0.1)
    assert len(run) == 4
    pair.now += 0.1
    assert server.receive_run(run, 0, CLIENT_ADDRESS, pair.now) == 4
    assert server.poll_timeout() == pytest.approx(pair.now + LONE_ACK_DELAY)


def test_a_long_response_sends_full_runs_while_an_ack_is_not_due() -> None:
    pair = confirmed_pair()
    client, server = pair.client.connection, pair.server.connection
    receive_something(pair)
    server.send_stream_data(0, bytes(500_000))
    runs = server.poll_transmit(pair.now)
    assert runs
    assert all(len(run.data) > run.segment for run in runs)
    assert client.recovery.bytes_in_flight > 0
    # The ACK leaves when it is due, with data if there is room for any.
    deliver(pair, transmit(server, pair.now + LONE_ACK_DELAY))
    assert client.recovery.bytes_in_flight == 0


def test_a_response_that_leaves_at_once_takes_the_ack_along() -> None:
    pair = confirmed_pair()
    client, server = pair.client.connection, pair.server.connection
    receive_something(pair)
    server.send_stream_data(0, bytes(3_000), end_stream=True)
    deliver(pair, transmit(server, pair.now))
    assert client.recovery.bytes_in_flight == 0
    assert server.spaces[Epoch.ONE_RTT].ack_at is None


def test_each_lone_packet_waits_anew() -> None:
    pair = confirmed_pair()
    server = pair.server.connection
    for _ in range(3):
        send(pair, 1)
        assert server.poll_timeout() == pytest.approx(pair.now + LONE_ACK_DELAY)
        assert transmit(server, pair.now + LONE_ACK_DELAY)


def test_a_packet_without_anything_new_to_acknowledge_carries_no_ack() -> None:
    pair = confirmed_pair()
    server = pair.server.connection
    receive_something(pair)
    sizes = []
    for _ in range(2):
        server.send_ping(1)
        ((data, *_),) = transmit(server, pair.now)
        sizes.append(len(data))
    assert sizes[1] < sizes[0]


def test_a_path_mtu_probe_carries_the_ack_and_leaves_it_pending() -> None:
    pair = confirmed_pair(settled=False)
    client, server = pair.client.connection, pair.server.connection
    server.paths.active.bytes_sent += MTU_PROBE_AFTER
    server.paths.active.mtu.reset()
    receive_something(pair)
    probes = [run for run in transmit(server, pair.now) if len(run[0]) > 1200]
    assert len(probes) == 1
    deliver(pair, probes)
    assert client.recovery.bytes_in_flight == 0
    # Probes are likelier lost than other packets (RFC 9000 section 14.4): the ACK leaves again.
    assert server.poll_timeout() <= pair.now + LONE_ACK_DELAY + 1e-9


def test_handshake_packets_carry_the_ack_of_their_space() -> None:
    pair = make_pair(own_client=True)
    client, server = pair.client.connection, pair.server.connection
    for data in datagrams(client, pair.now):
        server.receive_datagram(data, CLIENT_ADDRESS, pair.now)
    first, *_ = transmit(server, pair.now)
    # What the Initial packet acknowledges, the client does not send again.
    deliver(pair, [first])
    assert not client.recovery.spaces[0].sent


@pytest.mark.parametrize("traced", [False, True])
def test_pings_beside_acks_ask_for_no_prompt_ack(traced: bool, tmp_path: Path) -> None:
    """As ngtcp2 sends them through a download, to forget what it has acknowledged."""
    pair = confirmed_pair()
    client, server = pair.client.connection, pair.server.connection
    if traced:
        trace = Trace(File(tmp_path / "trace"), level="extra", group_id="aa", started=pair.now,
                      wall_clock=1.7e9)  # fmt: skip
        server.start_trace(trace)
    space = server.spaces[Epoch.ONE_RTT]
    for _ in range(3):
        client.spaces[Epoch.ONE_RTT].acks.add(0, server.spaces[Epoch.ONE_RTT].next_number)
        client.spaces[Epoch.ONE_RTT].ack_at = pair.now
        client.send_ping(1)
        for data in datagrams(client, pair.now):
            server.receive_datagram(data, CLIENT_ADDRESS, pair.now)
    assert space.ack_at == pair.now + LONE_ACK_DELAY
    # Anything that must be acknowledged promptly still is.
    receive_something(pair)
    receive_something(pair)
    assert space.ack_at == pair.now + ACK_DELAY
