"""What is sent first: RFC 9218, and turns for requests that say nothing."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.quic.events import StreamDataReceived

from quicedge.config.limits import MAX_STREAMS_BIDI
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair

SIZE = 200_000


def finish_order(prepare: Callable[[Pair], None], sizes: dict[int, int]) -> list[int]:
    """In what order the client has the whole of the server's answers."""
    pair = make_pair(down=Link(delay=0.02, rate=2_500_000))
    server, client = pair.server.connection, pair.client.connection
    pair.run(lambda: server.handshake_confirmed and bool(client._handshake_confirmed))
    for stream_id in sizes:
        client.send_stream_data(stream_id, b"?", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == len(sizes))
    prepare(pair)
    for stream_id, size in sizes.items():
        server.send_stream_data(stream_id, bytes(size), end_stream=True)
    finished: list[int] = []

    def note(event: object) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            finished.append(event.stream_id)

    pair.client.on_event = note
    pair.run(lambda: len(finished) == len(sizes))
    return finished


def test_the_more_urgent_come_first() -> None:
    def prepare(pair: Pair) -> None:
        for stream_id, urgency in ((0, 5), (4, 3), (8, 0)):
            pair.server.connection.prioritize(stream_id, urgency, False)

    assert finish_order(prepare, dict.fromkeys((0, 4, 8), SIZE)) == [8, 4, 0]


def test_what_is_useless_in_parts_comes_one_after_the_other() -> None:
    def prepare(pair: Pair) -> None:
        for stream_id in (0, 4, 8):
            pair.server.connection.prioritize(stream_id, 3, False)

    sizes = {0: SIZE, 4: SIZE, 8: 10_000}
    assert finish_order(prepare, sizes) == [0, 4, 8]


def test_incremental_ones_take_turns() -> None:
    def prepare(pair: Pair) -> None:
        for stream_id in (0, 4, 8):
            pair.server.connection.prioritize(stream_id, 3, True)

    sizes = {0: SIZE, 4: SIZE, 8: 10_000}
    assert finish_order(prepare, sizes)[0] == 8


def test_requests_that_say_nothing_take_turns_however_little_is_sent_at_once() -> None:
    sizes = {0: SIZE, 4: 50_000, 8: 10_000}
    assert finish_order(lambda pair: None, sizes) == [8, 4, 0]


def test_only_streams_that_can_be_are_remembered() -> None:
    pair = make_pair()
    server = pair.server.connection
    pair.run(lambda: server.handshake_confirmed)
    ids = range(0, 100_000, 4)
    for stream_id in ids:
        server.prioritize(stream_id, 1, False)
    assert sum(server.streams.is_prioritized(stream_id) for stream_id in ids) == MAX_STREAMS_BIDI
