"""What crosses a connection beside stream data: a rate and a share, never a total."""

from __future__ import annotations

import pytest

from quicedge.quic.connection import Connection
from quicedge.quic.events import OverheadExhausted
from tests.support.hostile import Hostile, varints
from tests.support.world import CLIENT, NOW

BURST, RATE, EVERY = 20_000, 2_000.0, 2_000


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of PING frames take too long here."""
    monkeypatch.setattr("quicedge.quic.connection.flood.FLOOD_BURST", BURST)
    monkeypatch.setattr("quicedge.quic.connection.flood.FLOOD_RATE", RATE)
    monkeypatch.setattr("quicedge.quic.connection.flood.FLOOD_CHECK_EVERY", EVERY)


class Visit(Hostile):
    """A client on a connection, and the events of the connection's handler."""

    def __init__(self) -> None:
        super().__init__()
        self.connect()
        self.now = NOW

    def send_frames(self, frames: bytes, after: float) -> None:
        """A packet of these frames arrives `after` so many seconds."""
        self.now += after
        self.world.endpoint.receive(self.packet(frames), CLIENT, self.now)
        self.world.endpoint.flush(self.now)
        self.world.network.take()

    def talk(self, after: float) -> None:
        """What both have to say arrives `after` so many seconds."""
        self.now += after
        for data, _ in self.client.datagrams_to_send(self.now):
            self.world.endpoint.receive(data, CLIENT, self.now)
        self.world.endpoint.flush(self.now)
        for data in self.world.network.take():
            self.client.receive_datagram(data, ("server", 443), self.now)

    @property
    def warned(self) -> bool:
        (handler,) = self.world.handlers
        return any(isinstance(event, OverheadExhausted) for event in handler.events)


def again(visit: Visit) -> bytes:
    """NEW_CONNECTION_ID with an ID that the client has issued already: no error."""
    issued = visit.client._host_cids[-1]
    return varints(0x18, issued.sequence_number, 0, 8) + issued.cid + issued.stateless_reset_token


FRAMES = {
    "PING": varints(0x01),
    "PATH_CHALLENGE": varints(0x1A) + bytes(8),
    "NEW_CONNECTION_ID": b"",
    "MAX_DATA": varints(0x10, 1 << 30),
    "MAX_STREAMS": varints(0x12, 1 << 20),
    "DATA_BLOCKED": varints(0x14, 5),
    "an empty STREAM frame": varints(0x0A, 0, 0),
}


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES.keys())
def test_a_flood_is_warned_then_ends_the_connection(frames: bytes) -> None:
    visit = Visit()
    frames = frames or again(visit)
    received_when_warned = 0
    while visit.server.is_alive and visit.server.counters.bytes_received < 10 * BURST:
        visit.send_frames(frames, 0.0001)
        if visit.warned and not received_when_warned:
            assert visit.server.is_alive
            received_when_warned = visit.server.counters.bytes_received
    assert visit.server.close_event is not None
    assert visit.server.close_event.reason_phrase == "flood"
    assert visit.world.endpoint.counters["floods_closed"] == 1
    assert BURST <= received_when_warned < 2 * BURST
    assert visit.server.counters.bytes_received < 3 * BURST


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES.keys())
def test_the_same_at_a_low_rate_is_let_be_without_end(frames: bytes) -> None:
    visit = Visit()
    frames = frames or again(visit)
    while visit.server.counters.bytes_received < 5 * BURST:
        visit.send_frames(frames, 0.03)
    assert visit.server.is_alive
    assert not visit.warned


def test_what_others_send_is_not_held_against_the_client() -> None:
    """Forged datagrams to its connection, and a packet of its own again and again."""
    visit = Visit()
    forged = b"\x40" + visit.server.local_ids.initial + bytes(1_000)
    genuine = visit.packet(FRAMES["PING"])
    while visit.server.counters.bytes_received < 5 * BURST:
        for datagram in (forged, genuine):
            visit.world.endpoint.receive(datagram, CLIENT, visit.now)
            visit.world.endpoint.flush(visit.now)
    assert visit.server.is_alive
    assert not visit.warned


def test_small_messages_downstream_are_no_overhead() -> None:
    """An event stream of a byte each 10 ms: the client's ACKs are most of what it sends."""
    visit = Visit()
    visit.client.send_stream_data(0, b"events", end_stream=True)
    visit.talk(0.01)
    while visit.server.counters.bytes_received < 4 * BURST:
        visit.server.send_stream_data(0, b"\0\x01x")
        visit.world.endpoint.wake(visit.server)
        visit.talk(0.01)
    assert visit.server.is_alive
    assert not visit.warned


def test_what_streams_carry_pays_for_the_rest() -> None:
    """As many PING as a flood has, beside an upload."""
    visit = Visit()
    server: Connection = visit.server
    while server.counters.bytes_received < 10 * BURST:
        visit.client.send_ping(1)
        visit.client.send_stream_data(0, b"x" * 10)
        visit.talk(0.0001)
        server.consume(0, 10)
    assert server.is_alive
    assert not visit.warned
