"""A connection stopped for good when its bucket held less than a datagram of the size that PMTU
discovery had found, but more than one of the size it had started from: too little to send, and too
much to wait for a timer."""

from __future__ import annotations

from aioquic.quic.events import StreamDataReceived
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.pacer import Pacer
from tests.support.quicpair import make_pair
from tests.support.simnet import Link


@given(
    size=st.integers(1200, 9000),
    window=st.integers(2400, 10_000_000),
    rtt=st.floats(0.0001, 2),
    sent=st.lists(st.integers(1, 65536), max_size=20),
    waited=st.floats(0, 0.1),
)
def test_whoever_may_not_send_is_told_when(
    size: int, window: int, rtt: float, sent: list[int], waited: float
) -> None:
    pacer = Pacer(1200)
    pacer.datagram_size = size
    pacer.set_rate(window, rtt, slow_start=False)
    now = 100.0
    for nbytes in sent:
        pacer.budget(now)
        pacer.on_sent(nbytes)
    now += waited
    if pacer.budget(now) < size:
        at = pacer.next_send_time(now)
        assert at is not None
        assert at > now
        assert pacer.budget(at + 1e-6) >= size


def test_a_slow_link_is_filled_after_the_mtu_grew() -> None:
    """At 40 kB/s pacing waits before every other packet."""
    pair = make_pair(
        Link(delay=0.1), Link(delay=0.1, rate=40_000, queue=8_000),
        server_options={"max_datagram_size": 1200}, mtu_ceiling=1472,
    )  # fmt: skip
    pair.run(lambda: pair.server.connection.handshake_complete)
    client, server = pair.client.connection, pair.server.connection
    stream_id = client.get_next_available_stream_id()
    client.send_stream_data(stream_id, b"GET", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == 1)
    server.send_stream_data(stream_id, bytes(200_000), end_stream=True)
    pair.run(
        lambda: any(isinstance(e, StreamDataReceived) and e.end_stream for e in pair.client.events),
        limit=30,
    )
    assert server.max_datagram_size == 1472
