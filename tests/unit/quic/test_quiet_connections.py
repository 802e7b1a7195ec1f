"""A connection with nothing to send packs nothing, and whatever becomes due is packed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from quicedge.config.limits import MTU_PROBE_AFTER, PTO_PROBES
from quicedge.quic.connection import Connection
from quicedge.quic.connection.packer import Packer
from quicedge.quic.frames import Epoch
from tests.support.quicpair import make_pair
from tests.support.simnet import Pair


def quiet_pair() -> Pair:
    """A pair with a stream open both ways, and nothing left to send or to acknowledge."""
    pair = make_pair(own_client=True, mtu_ceiling=1200)
    client, server = pair.client.connection, pair.server.connection
    client.skipper.at = server.skipper.at = 1 << 60
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    client.send_stream_data(0, b"request")
    pair.run(lambda: server.streams.get(0) is not None)
    server.send_stream_data(0, b"response")
    end = pair.now + 1
    while pair.step(end):
        pass
    assert not server.recovery.bytes_in_flight
    return pair


def use_up_credit(server: Connection) -> None:
    server.streams.window.granted += server.streams.window.worth


def use_up_streams(server: Connection) -> None:
    count = server.streams.peer_bidi
    count.opened = count.announced
    count.granted += 1


def write_crypto(server: Connection) -> None:
    server.spaces[Epoch.ONE_RTT].crypto_out.write(b"a ticket", False)


def ask_for_probes(server: Connection) -> None:
    server.recovery.probe(server.spaces[Epoch.ONE_RTT])


def challenge(server: Connection) -> None:
    server.paths.active.receive_challenge(b"8 octets")


DUE: dict[str, Callable[[Connection], Any]] = {
    "data": lambda server: server.send_stream_data(0, b"more"),
    "the end of a stream": lambda server: server.send_stream_data(0, b"", end_stream=True),
    "a reset": lambda server: server.reset_stream(0, 1),
    "stop sending": lambda server: server.stop_stream(0, 1),
    "a ping": lambda server: server.send_ping(1),
    "connection IDs": lambda server: server.renew_connection_ids(),
    "the retirement of an ID": lambda server: server.change_connection_id(),
    "credit": use_up_credit,
    "streams": use_up_streams,
    "handshake data": write_crypto,
    "probes": ask_for_probes,
    "a path response": challenge,
    "a close": lambda server: server.close(),
}


@pytest.mark.parametrize("due", DUE)
def test_whatever_becomes_due_on_a_quiet_connection_is_sent_at_once(due: str) -> None:
    pair = quiet_pair()
    server = pair.server.connection
    assert not server.poll_transmit(pair.now)
    DUE[due](server)
    assert server.poll_transmit(pair.now)


def test_an_ack_is_sent_when_it_is_due_and_not_before() -> None:
    pair = quiet_pair()
    server = pair.server.connection
    space = server.spaces[Epoch.ONE_RTT]
    space.want_ack_of(1, pair.now, prompt=False)
    assert space.ack_at is not None
    space.acks.add(0, 1)
    assert not server.poll_transmit(pair.now)
    assert server.poll_timeout() == space.ack_at
    assert server.poll_transmit(space.ack_at)


def test_a_quiet_connection_still_looks_for_a_larger_mtu() -> None:
    pair = make_pair(own_client=True, mtu_ceiling=1452)
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_confirmed and server.handshake_confirmed)
    end = pair.now + 1
    while pair.step(end):
        pass
    assert not server.poll_transmit(pair.now)
    server.paths.active.bytes_sent += MTU_PROBE_AFTER
    (probe,) = server.poll_transmit(pair.now)
    assert len(probe.data) == 1452
    assert not server.poll_transmit(pair.now)


def test_a_key_update_that_is_asked_for_is_made_without_data() -> None:
    pair = quiet_pair()
    server = pair.server.connection
    server.request_key_update()
    server.poll_transmit(pair.now)
    assert server.handshake.phases.updates == 1


def test_probes_of_a_quiet_connection_are_as_many_as_ever() -> None:
    pair = quiet_pair()
    server = pair.server.connection
    ask_for_probes(server)
    assert len(server.poll_transmit(pair.now)) == PTO_PROBES
    assert not server.poll_transmit(pair.now)


class Sent:
    """What a packer has sealed."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def packet_sent(self, epoch: Epoch, number: int, payload: bytes, size: int) -> None:
        self.payloads.append(payload)


SMALL: dict[str, tuple[bool, bytes, bool]] = {
    "a response with the ACK of its request": (True, b"response", True),
    "a response whose request is acknowledged": (False, b"response", True),
    "a part of a response": (True, b"part", False),
    "one that only just fits": (True, b"r" * 630, True),
    "one that does not leave room for any ACK": (True, b"r" * 900, True),
    "nothing but the end": (False, b"", True),
}


@pytest.mark.parametrize(("acks", "data", "end"), SMALL.values(), ids=SMALL.keys())
def test_a_small_response_is_packed_as_any_other_data(
    acks: bool, data: bytes, end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for at_once in (True, False):
        if not at_once:
            monkeypatch.setattr(Packer, "_pack_small", lambda *_: False)
        pair = quiet_pair()
        server, sent = pair.server.connection, Sent()
        space = server.spaces[Epoch.ONE_RTT]
        if acks:
            space.note_received(space.expected, space.expected + 1, pair.now)
            space.want_ack_of(1, pair.now, prompt=False)
        server._packer.observer = cast(Any, sent)
        server.send_stream_data(0, data, end)
        (run,) = server.poll_transmit(pair.now)
        server._packer.observer = None
        (packet,) = space.sent.values()
        recovery = server.recovery
        outcomes.append((
            sent.payloads, len(run.data), run.segment, run.path, run.ecn, space.ack_at,
            server.streams.unsent_total, server.streams.send_used, recovery.bytes_in_flight,
            space.eliciting_in_flight, [args[1:] for _, args in packet.deliveries], packet.size,
            packet.ack_eliciting, packet.in_flight, packet.app_limited, server.poll_timeout(),
            server.counters.packets_sent, server.paths.active.bytes_sent,
            server.paths.active.ecn is not None and server.paths.active.ecn.marked_total,
            not server.poll_transmit(pair.now),
        ))  # fmt: skip
    assert outcomes[0] == outcomes[1]


def test_small_responses_of_several_streams_share_a_packet() -> None:
    pair = quiet_pair()
    client, server = pair.client.connection, pair.server.connection
    for stream_id in (4, 8):
        client.send_stream_data(stream_id, b"request", end_stream=True)
    pair.run(lambda: server.streams.get(8) is not None)
    for stream_id in (4, 8):
        server.send_stream_data(stream_id, b"response", end_stream=True)
    (run,) = server.poll_transmit(pair.now)
    assert len(run.data) == run.segment
