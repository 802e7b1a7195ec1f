"""ECN against RFC 9000 section 13.4, on a link that marks, bleaches or swallows."""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection
from hypothesis import given
from hypothesis import strategies as st

from quicedge.quic.ecn import ECT_0, NOT_ECT, EcnState, EcnValidation
from tests.support.quicpair import CLIENT_ADDRESS, make_pair
from tests.support.simnet import Link, Pair

MEGABYTE = 1_000_000


def marking_pair(up: Link | None = None, down: Link | None = None) -> Pair:
    """A pair of our connections: aioquic's client has no ECN."""
    return make_pair(up, down, own_client=True)


def transfer(pair: Pair, nbytes: int = MEGABYTE) -> None:
    """Send bytes from the server to the client, all of them acknowledged."""
    client, server = pair.client.connection, pair.server.connection
    pair.run(lambda: client.handshake_complete and server.handshake_complete)
    stream_id = client.get_next_available_stream_id()
    client.send_stream_data(stream_id, b"?", end_stream=True)
    pair.run(lambda: server.streams.peer_bidi.opened == 1)
    server.send_stream_data(stream_id, bytes(nbytes), end_stream=True)
    received = 0

    def count(event: object) -> None:
        nonlocal received
        data = getattr(event, "data", None)
        if isinstance(data, bytes):
            received += len(data)
            client.consume(stream_id, len(data))

    pair.client.on_event = count
    pair.run(lambda: received == nbytes and server.recovery.bytes_in_flight == 0)


def test_a_clean_path_is_capable_and_every_packet_is_marked() -> None:
    pair = marking_pair()
    transfer(pair)
    client, server = pair.client.connection, pair.server.connection
    assert server.paths.ecn_state is client.paths.ecn_state is EcnState.CAPABLE
    assert server.paths.active.ecn.codepoint(0) == ECT_0
    assert server.counters.ecn_ce_reported == 0


def test_a_mark_of_congestion_halves_nothing_but_is_heeded_like_a_loss() -> None:
    clean, marked = marking_pair(), marking_pair(down=Link(ce=0.05))
    transfer(clean)
    transfer(marked)
    server = marked.server.connection
    assert server.paths.ecn_state is EcnState.CAPABLE
    seen = marked.client.connection.counters.ecn_received[2]
    assert server.counters.ecn_ce_reported == seen > 10
    assert server.recovery.packets_lost == 0
    assert server.recovery.congestion_window < clean.server.connection.recovery.congestion_window


def test_a_path_that_bleaches_marks_is_not_marked_on_any_more() -> None:
    pair = marking_pair(down=Link(bleach=True))
    transfer(pair)
    assert pair.server.connection.paths.ecn_state is EcnState.FAILED
    assert pair.server.connection.paths.active.ecn.codepoint(0) == NOT_ECT
    # The other direction is a path of its own.
    assert pair.client.connection.paths.ecn_state is EcnState.CAPABLE


def test_a_peer_without_ecn_ends_the_marks() -> None:
    pair = make_pair()
    assert type(pair.client.connection) is QuicConnection
    server = pair.server.connection
    pair.run(lambda: server.handshake_complete)
    pair.client.connection.send_stream_data(0, b"x" * 10_000, end_stream=True)
    pair.run(lambda: server.paths.ecn_state is EcnState.FAILED)
    assert pair.client.address == CLIENT_ADDRESS


def test_marks_that_are_swallowed_do_not_keep_a_connection_from_starting() -> None:
    pair = marking_pair()
    send = pair.server.connection.poll_transmit

    def swallow(now: float) -> object:
        return [run for run in send(now) if not run.ecn]

    pair.server.connection.poll_transmit = swallow
    transfer(pair, 10_000)
    assert pair.server.connection.paths.active.ecn.codepoint(0) == NOT_ECT


def test_counts_that_cannot_be_fail_validation() -> None:
    for counts in ((4, 0, 0), (11, 0, 0), (5, 1, 0), (0, 0, 0)):
        ecn = EcnValidation()
        ecn.on_sent("space", 0, 10)
        ecn.on_ack("space", counts, [(0, 5)], True)
        assert ecn.state is EcnState.FAILED, counts
    ecn = EcnValidation()
    ecn.on_sent("space", 0, 10)
    assert ecn.on_ack("space", (3, 0, 2), [(0, 5)], True) == 2
    assert ecn.state is EcnState.CAPABLE
    # Fewer than before, but of an ACK that came late: it proves nothing.
    assert ecn.on_ack("space", (1, 0, 0), [], False) == 0
    assert ecn.state is EcnState.CAPABLE


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.booleans()), max_size=20),
       st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30)), max_size=5))  # fmt: skip
def test_marked_packets_are_counted_as_one_by_one(
    runs: list[tuple[int, int, bool]], spans: list[tuple[int, int]]
) -> None:
    ecn = EcnValidation()
    marked = set()
    at = 0
    for gap, length, mark in runs:
        at += gap
        if mark:
            ecn.on_sent("space", at, at + length)
            marked |= set(range(at, at + length))
        at += length
    acked = [(start, start + length) for start, length in spans]
    assert ecn.marked_among("space", acked) == sum(
        number in marked for start, stop in acked for number in range(start, stop)
    )
