"""Whatever the network does, every byte arrives once and in order, and nothing stays in flight."""

from __future__ import annotations

import random

from aioquic.quic.events import StreamDataReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.quicpair import make_pair
from tests.support.simnet import Link

NETWORK = st.builds(
    Link,
    delay=st.floats(0.001, 0.2),
    loss=st.floats(0, 0.15),
    jitter=st.floats(0, 0.05),
    rate=st.none() | st.floats(100_000, 10_000_000),
    queue=st.integers(10_000, 200_000),
    duplicates=st.floats(0, 0.1),
)


@settings(max_examples=60)
@given(
    up=NETWORK,
    down=NETWORK,
    seed=st.integers(0, 2**32),
    controller=st.sampled_from(["cubic", "reno", "bbr"]),
    sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
)
def test_every_byte_arrives_once_in_order_and_nothing_stays_in_flight(
    up: Link, down: Link, seed: int, controller: str, sizes: list[int]
) -> None:
    pair = make_pair(
        up, down, seed=seed, server_options={"congestion_control_algorithm": controller}
    )
    server, client = pair.server.connection, pair.client.connection
    pair.run(lambda: bool(server.handshake_confirmed and client._handshake_confirmed), 600)
    rng = random.Random(seed)
    bodies = {4 * index: rng.randbytes(size) for index, size in enumerate(sizes)}
    received = dict.fromkeys(bodies, b"")
    ended: list[int] = []

    def take(event: object) -> None:
        if isinstance(event, StreamDataReceived):
            received[event.stream_id] += event.data
            if event.end_stream:
                ended.append(event.stream_id)

    pair.client.on_event = take
    for stream_id in bodies:
        client.send_stream_data(stream_id, b"?", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == len(bodies), 600)
    for stream_id, body in bodies.items():
        server.send_stream_data(stream_id, body, end_stream=True)
    pair.run(lambda: len(ended) == len(bodies), 600)
    assert received == bodies
    pair.run(lambda: server.recovery.bytes_in_flight == 0, 600)
    assert sorted(ended) == list(bodies)
    assert not server.recovery.runs
