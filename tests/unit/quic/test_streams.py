"""Streams: which exist, which may send, and what is said of limits (RFC 9000 sections 3 and 4)."""

from __future__ import annotations

import pytest

from quicedge.quic.connection.draft import Draft
from quicedge.quic.connection.events import EventQueue
from quicedge.quic.connection.streams import Streams
from quicedge.quic.errors import ErrorCode, TransportError
from quicedge.quic.frames import (
    DataBlocked,
    Epoch,
    MaxData,
    MaxStreamData,
    MaxStreamsBidi,
    ResetStream,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamsBlockedBidi,
    StreamsBlockedUni,
    parse_frame,
)

WINDOW = 1000


def streams(*, is_client: bool = True, max_bidi: int = 2, max_data: int = 10_000) -> Streams:
    made = Streams(
        is_client=is_client,
        events=EventQueue(),
        stream_window=WINDOW,
        connection_window=3 * WINDOW,
        max_bidi=2,
        max_uni=1,
    )
    made.apply_limits(
        max_data=max_data,
        bidi_local=400,
        bidi_remote=500,
        uni=300,
        max_bidi=max_bidi,
        max_uni=0,
    )
    return made


def control_frames(of: Streams) -> list[bytes]:
    draft = Draft(Epoch.ONE_RTT, 1000)
    assert of.write_frames(draft)
    return draft.parts


def send_all(of: Streams) -> dict[int, int]:
    """Send what may go: bytes by stream."""
    sent: dict[int, int] = {}
    while (found := of.next_sendable()) is not None:
        stream, until = found
        before = stream.send.buffer.highest if stream.send is not None else 0
        draft = Draft(Epoch.ONE_RTT, 1000)
        assert of.write_data(draft, stream, until)
        assert stream.send is not None
        sent[stream.id] = sent.get(stream.id, 0) + stream.send.buffer.highest - before
    return sent


def received(of: Streams, stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> None:
    of.receive_stream(stream_id, offset, data, fin, 0x0F)


def test_ids_go_up_by_four_for_each_kind() -> None:
    client, server = streams(), streams(is_client=False)
    assert client.next_id(unidirectional=False) == 0
    assert client.next_id(unidirectional=True) == 2
    assert server.next_id(unidirectional=False) == 1
    assert server.next_id(unidirectional=True) == 3
    client.write(0, b"x", False)
    assert client.next_id(unidirectional=False) == 4
    assert client.next_id(unidirectional=True) == 2


def test_streams_that_cannot_send_or_receive_are_refused() -> None:
    server = streams(is_client=False)
    with pytest.raises(ValueError, match="not open"):
        server.write(0, b"x", False)
    received(server, 2, 0, b"x")
    with pytest.raises(ValueError, match="receive-only"):
        server.write(2, b"x", False)
    server.write(3, b"x", False)
    with pytest.raises(ValueError, match="cannot stop"):
        server.stop(3, 0)
    with pytest.raises(ValueError, match="cannot stop"):
        server.stop(8, 0)


def test_data_is_sent_up_to_the_limit_of_the_stream_and_of_the_connection() -> None:
    client = streams(max_data=800)
    client.write(0, bytes(600), False)
    client.write(4, bytes(600), False)
    # 500 are allowed on each, 800 on both.
    assert sorted(send_all(client).values()) == [300, 500]
    assert client.is_flow_blocked(0)
    assert client.is_flow_blocked(4)
    client.receive_max_data(MaxData(10_000))
    client.receive_max_stream_data(MaxStreamData(0, 600))
    client.receive_max_stream_data(MaxStreamData(4, 600))
    assert sum(send_all(client).values()) == 400
    assert client.unsent_total == 0


def test_a_limit_that_goes_down_is_ignored() -> None:
    client = streams()
    client.receive_max_data(MaxData(1))
    client.receive_max_streams_bidi(MaxStreamsBidi(0))
    client.write(0, bytes(100), False)
    client.receive_max_stream_data(MaxStreamData(0, 1))
    assert send_all(client) == {0: 100}


def test_a_stream_beyond_the_limit_waits_and_says_so_once() -> None:
    client = streams(max_bidi=1)
    for stream_id in (0, 4, 8):
        client.write(stream_id, b"hello", True)
    client.write(2, b"hello", True)
    assert send_all(client) == {0: 5}
    assert control_frames(client) == [
        StreamsBlockedBidi(1).encode(),
        StreamsBlockedUni(0).encode(),
    ]
    assert control_frames(client) == []
    client.receive_max_streams_bidi(MaxStreamsBidi(2))
    assert send_all(client) == {4: 5}


@pytest.mark.parametrize("operation", ["reset", "stop"])
def test_nothing_is_said_of_a_stream_before_the_peer_allows_it(operation: str) -> None:
    # RFC 9000 section 4.6: a frame with an ID beyond the limit is a STREAM_LIMIT_ERROR.
    client = streams(max_bidi=0)
    client.write(0, b"hello", False)
    control_frames(client)
    getattr(client, operation)(0, 7)
    assert control_frames(client) == []
    client.receive_max_streams_bidi(MaxStreamsBidi(1))
    expected = ResetStream(0, 7, 0) if operation == "reset" else StopSending(0, 7)
    assert control_frames(client) == [expected.encode()]


def test_a_reset_discards_what_was_not_sent() -> None:
    client = streams()
    client.write(0, bytes(700), False)
    assert send_all(client) == {0: 500}
    client.reset(0, 7)
    assert client.unsent_total == 0
    assert control_frames(client) == [ResetStream(0, 7, 500).encode()]
    client.write(0, b"more", True)
    assert send_all(client) == {}


def test_credit_is_given_as_the_application_consumes() -> None:
    server = streams(is_client=False)
    received(server, 0, 0, bytes(WINDOW))
    assert control_frames(server) == []
    server.consume(0, WINDOW)
    assert MaxStreamData(0, 2 * WINDOW).encode() in control_frames(server)


def test_data_beyond_the_window_is_a_flow_control_error() -> None:
    server = streams(is_client=False)
    with pytest.raises(TransportError) as caught:
        received(server, 0, WINDOW, b"x")
    assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_beyond_our_limit_is_a_stream_limit_error() -> None:
    server = streams(is_client=False)
    received(server, 4, 0, b"x")
    with pytest.raises(TransportError) as caught:
        received(server, 8, 0, b"x")
    assert caught.value.code == ErrorCode.STREAM_LIMIT_ERROR


def test_more_streams_are_allowed_as_earlier_ones_end() -> None:
    server = streams(is_client=False)
    for stream_id in (0, 4):
        received(server, stream_id, 0, b"x", fin=True)
        server.write(stream_id, b"y", True)
    assert send_all(server) == {0: 1, 4: 1}
    assert control_frames(server) == []
    stream = server.get(0)
    server.on_data_delivery(True, stream, 0, 1, True)
    assert server.get(0) is None
    assert control_frames(server) == [MaxStreamsBidi(3).encode()]
    received(server, 8, 0, b"x")


def test_an_end_without_data_waits_for_a_packet_with_room() -> None:
    made = streams()
    made.write(0, b"data", False)
    assert send_all(made) == {0: 4}
    made.write(0, b"", True)
    found = made.next_sendable()
    assert found is not None
    assert not made.write_data(Draft(Epoch.ONE_RTT, 3), *found)
    assert made.next_sendable() == found
    draft = Draft(Epoch.ONE_RTT, 100)
    assert made.write_data(draft, *found)
    assert parse_frame(draft.parts[0], 0)[1] == Stream(0, 4, b"", True)
    assert made.next_sendable() is None


def test_a_blocked_stream_says_so_once_per_limit() -> None:
    made = streams()
    made.write(0, bytes(500), False)
    assert send_all(made) == {0: 500}
    assert control_frames(made) == []  # all was sent: it is not blocked
    made.write(0, bytes(700), False)
    for limit in (500, 800):
        made.receive_max_stream_data(MaxStreamData(0, limit))
        send_all(made)
        assert control_frames(made) == [StreamDataBlocked(0, limit).encode()]
        made.write(0, b"more", False)
        send_all(made)
        assert not made.has_frames
    made.receive_max_stream_data(MaxStreamData(0, 5000))
    send_all(made)
    assert not made.has_frames


def test_a_blocked_connection_says_so_once_per_limit() -> None:
    made = streams(max_data=600)
    made.write(0, bytes(400), False)
    made.write(4, bytes(400), False)
    send_all(made)
    assert control_frames(made) == [DataBlocked(600).encode()]
    send_all(made)
    assert not made.has_frames
    made.receive_max_data(MaxData(700))
    send_all(made)
    assert control_frames(made) == [DataBlocked(700).encode()]
    made.receive_max_data(MaxData(5000))
    send_all(made)
    assert not made.has_frames


def test_lost_blocked_frames_are_sent_again_only_while_still_blocked() -> None:
    made = streams(max_data=700)
    made.write(0, bytes(600), False)
    made.write(4, bytes(400), False)
    send_all(made)
    draft = Draft(Epoch.ONE_RTT, 1000)
    assert made.write_frames(draft)
    expected = [DataBlocked(700).encode(), StreamDataBlocked(0, 500).encode()]
    assert draft.parts == expected
    for delivery, args in draft.deliveries:
        delivery(False, *args)
    assert control_frames(made) == expected
    made.receive_max_data(MaxData(5000))
    made.receive_max_stream_data(MaxStreamData(0, 5000))
    send_all(made)
    for delivery, args in draft.deliveries:
        delivery(False, *args)
    assert not made.has_frames


def test_a_reset_stream_is_not_blocked() -> None:
    made = streams()
    made.write(0, bytes(600), False)
    send_all(made)
    made.reset(0, 7)
    assert control_frames(made) == [ResetStream(0, 7, 500).encode()]
