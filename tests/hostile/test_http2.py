"""Clients that violate RFC 9113 or flood the edge over HTTP/2, and honest ones that live long."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from quicedge.config.limits import (
    ABANDONED_PAGES,
    DRAIN_NOTICE,
    H2_EARLY_RESPONSE_LEAD,
    H2_MAX_FRAME_SIZE,
    H2_OVERHEAD_BURST,
    H2_RESETS_REMEMBERED,
    MAX_STREAMS_BIDI,
)
from quicedge.config.schema import Limits
from quicedge.http.errors import H2ErrorCode as Code
from quicedge.http.h2_frames import PREFACE
from quicedge.http.message import Response
from quicedge.telemetry.outcomes import Refusal
from tests.support.h2client import RawClient, frame
from tests.support.hostile_h2 import ping, settings, window
from tests.support.sessions import GET, POST

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, PRIORITY_UPDATE, UNKNOWN = 6, 7, 8, 9, 0x10, 0x42
END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 1, 4, 8, 0x20
HEAD = b"\x82\x87\x84\x41\x01a"
"""A GET in HPACK that inserts nothing but its authority."""
RULES: dict[str, tuple[bytes, Code]] = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(DATA, 0, 5, b"x"), Code.PROTOCOL_ERROR),
    "DATA on a stream of ours": (frame(DATA, 0, 2, b"x"), Code.PROTOCOL_ERROR),
    "padding longer than its frame": (frame(DATA, PADDED, 1, b"\x05x"), Code.PROTOCOL_ERROR),
    "padding without its length": (frame(DATA, PADDED, 1, b""), Code.PROTOCOL_ERROR),
    "a frame beyond the maximum": (
        frame(UNKNOWN, 0, 0, bytes(H2_MAX_FRAME_SIZE + 1))[:9], Code.FRAME_SIZE_ERROR,
    ),
    "HEADERS on stream 0": (frame(HEADERS, 5, 0, HEAD), Code.PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(HEADERS, 5, 2, HEAD), Code.PROTOCOL_ERROR),
    "a stream ID that goes down": (
        frame(HEADERS, 5, 9, HEAD) + frame(HEADERS, 5, 7, HEAD), Code.PROTOCOL_ERROR,
    ),
    "HEADERS with too much padding": (
        frame(HEADERS, 5 | PADDED, 3, b"\x20" + HEAD), Code.PROTOCOL_ERROR,
    ),
    "HEADERS too short for a priority": (
        frame(HEADERS, 5 | WITH_PRIORITY, 3, b"\0\0"), Code.PROTOCOL_ERROR,
    ),
    "a header block that is interrupted": (
        frame(HEADERS, 1, 3, HEAD) + ping(), Code.PROTOCOL_ERROR,
    ),
    "a header block of two streams": (
        frame(HEADERS, 1, 3, HEAD) + frame(CONTINUATION, 4, 5), Code.PROTOCOL_ERROR,
    ),
    "CONTINUATION alone": (frame(CONTINUATION, 4, 1), Code.PROTOCOL_ERROR),
    "a block that cannot be decoded": (frame(HEADERS, 5, 3, b"\xff"), Code.COMPRESSION_ERROR),
    "trailers that cannot be decoded": (frame(HEADERS, 5, 1, b"\x80"), Code.COMPRESSION_ERROR),
    "PRIORITY of stream 0": (frame(PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(RST_STREAM, 0, 5, bytes(4)), Code.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), Code.PROTOCOL_ERROR),
    "RST_STREAM of a wrong size": (frame(RST_STREAM, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    "SETTINGS of a stream": (frame(SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "SETTINGS of a wrong size": (frame(SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "SETTINGS ACK with a payload": (frame(SETTINGS, 1, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "ENABLE_PUSH of 2": (settings(_2=2), Code.PROTOCOL_ERROR),
    "ENABLE_CONNECT_PROTOCOL of 2": (settings(_8=2), Code.PROTOCOL_ERROR),
    "NO_RFC7540_PRIORITIES of 2": (settings(_9=2), Code.PROTOCOL_ERROR),
    "a window beyond its maximum": (settings(_4=2**31), Code.FLOW_CONTROL_ERROR),
    "a maximum frame size too small": (settings(_5=16_383), Code.PROTOCOL_ERROR),
    "a maximum frame size too large": (settings(_5=2**24), Code.PROTOCOL_ERROR),
    "a window that a setting overflows": (
        window(1, 2**31 - 1 - 65_535) + settings(_4=65_536), Code.FLOW_CONTROL_ERROR,
    ),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, 4, 1, bytes(4) + HEAD), Code.PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "PING of a wrong size": (frame(PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "GOAWAY cut short": (frame(GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of a wrong size": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by nothing": (window(0, 0), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond the maximum": (window(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE on an idle stream": (window(5, 1), Code.PROTOCOL_ERROR),
    "PRIORITY_UPDATE on a stream": (frame(PRIORITY_UPDATE, 0, 1, bytes(5)), Code.PROTOCOL_ERROR),
    "PRIORITY_UPDATE of the connection": (
        frame(PRIORITY_UPDATE, 0, 0, bytes(4)), Code.PROTOCOL_ERROR,
    ),
    "PRIORITY_UPDATE cut short": (frame(PRIORITY_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_what_breaks_a_rule_ends_the_connection(rule: str) -> None:
    client = RawClient()
    client.ask(POST, end=False)
    data, code = RULES[rule]
    client.send(data)
    assert client.goaway == code
    assert client.transport.closed
    assert client.origin[0].aborted


STREAM_RULES: dict[str, tuple[bytes, Code]] = {
    "a second head": (frame(HEADERS, 4, 1, HEAD), Code.PROTOCOL_ERROR),
    "content after the end": (
        frame(DATA, 1, 1, b"x") + frame(DATA, 0, 1, b"y"), Code.STREAM_CLOSED,
    ),
    "HEADERS after the end": (
        frame(DATA, 1, 1, b"x") + frame(HEADERS, 5, 1, HEAD), Code.STREAM_CLOSED,
    ),
    "WINDOW_UPDATE by nothing": (window(1, 0), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond the maximum": (window(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "PRIORITY of a wrong size": (frame(PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    "PRIORITY upon itself": (frame(PRIORITY, 0, 1, b"\0\0\0\x01\0"), Code.PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("rule", STREAM_RULES)
def test_what_breaks_a_rule_of_a_stream_costs_it_alone(rule: str) -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    other = client.ask(POST, end=False)
    data, code = STREAM_RULES[rule]
    client.send(data)
    assert client.resets == {stream: code}
    assert client.origin[0].aborted
    client.send(frame(DATA, 1, other, b"fine"))
    assert client.origin[1].content == b"fine"
    assert client.origin[1].ended


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + ping(), PREFACE + frame(SETTINGS, 1, 0)]
)
def test_what_does_not_greet_is_turned_away(greeting: bytes) -> None:
    client = RawClient(greets=False)
    client.send(greeting)
    assert client.goaway == Code.PROTOCOL_ERROR
    assert client.transport.closed


def test_unknown_frames_flags_and_settings_are_ignored() -> None:
    client = RawClient()
    client.send(
        frame(UNKNOWN, 0xFF, 7, b"whatever"), settings(_4660=7), frame(PING, 0xFE, 0, bytes(8))
    )
    assert client.goaway is None
    assert len(client.of(PING)) == 1
    stream = client.open()
    client.send(frame(HEADERS, 5 | 0x40, stream | 0x8000_0000, HEAD))
    assert len(client.origin) == 1


def test_more_streams_than_allowed_are_refused_and_no_others() -> None:
    client = RawClient()
    streams = [client.ask() for _ in range(MAX_STREAMS_BIDI + 3)]
    assert client.resets == dict.fromkeys(streams[-3:], Code.REFUSED_STREAM)
    client.origin[0].answer()
    client.run()
    client.ask()
    assert len(client.origin) == MAX_STREAMS_BIDI + 1


def test_frames_of_closed_streams_are_distinguished() -> None:
    client = RawClient()
    ended = client.ask()
    client.origin[0].answer()
    client.run()
    cancelled = client.ask(POST, end=False)
    client.send(frame(RST_STREAM, 0, cancelled, bytes(4)))
    client.send(frame(DATA, 0, cancelled, b"late"))
    assert client.resets == {cancelled: Code.STREAM_CLOSED}
    client.send(window(ended, 5), frame(RST_STREAM, 0, ended, bytes(4)))
    assert client.goaway is None
    client.send(frame(DATA, 0, ended, b"late"))
    assert client.goaway == Code.STREAM_CLOSED


def test_streams_that_are_over_are_forgotten() -> None:
    client = RawClient()
    for _ in range(3 * H2_RESETS_REMEMBERED):
        client.ask()
        client.origin.pop().answer()
        client.run()
    codec = client.session.codec
    assert not codec.streams
    assert len(codec._closed) <= H2_RESETS_REMEMBERED


def test_priorities_of_requests_that_never_come_are_bounded() -> None:
    client = RawClient()
    for stream_id in range(1, 5 * MAX_STREAMS_BIDI, 2):
        client.send(frame(PRIORITY_UPDATE, 0, 0, stream_id.to_bytes(4, "big") + b"u=1"))
    assert len(client.session.codec._priorities) <= MAX_STREAMS_BIDI


def test_a_bomb_of_references_ends_the_connection_at_once() -> None:
    client = RawClient()
    large = client.encoder.encode([*GET, (b"x", b"y" * 4000)])
    client.send(frame(HEADERS, 5, client.open(), large))
    stream = client.open()
    client.send(frame(HEADERS, 1, stream, b"\xbe" * 16_000), frame(CONTINUATION, 4, stream))
    assert client.goaway == Code.ENHANCE_YOUR_CALM


def test_a_header_block_without_end_is_bounded_in_size_and_time() -> None:
    client = RawClient()
    stream = client.open()
    client.send(frame(HEADERS, 1, stream, b"\0\x01x\x7f"))
    for _ in range(20):
        client.send(frame(CONTINUATION, 0, stream, bytes(16_000)))
    assert client.goaway == Code.ENHANCE_YOUR_CALM
    slow = RawClient()
    stream = slow.open()
    slow.send(frame(HEADERS, 1, stream, HEAD))
    session = slow.session
    assert session.is_busy
    assert session.timeouts.check(session, Limits(header_timeout=10.0), 0.0) == 0
    assert session.timeouts.check(session, Limits(header_timeout=10.0), 11.0) == 1
    slow.read()
    assert slow.goaway == Code.ENHANCE_YOUR_CALM


# --- floods -----------------------------------------------------------------------------------


def cancel(client: RawClient) -> bytes:
    """Rapid reset (CVE-2023-44487)."""
    stream = client.open()
    return client.head(stream_id=stream) + frame(RST_STREAM, 0, stream, bytes(4))


def widened_by_nothing(client: RawClient) -> bytes:
    """MadeYouReset (CVE-2025-8671): the edge resets for the client."""
    stream = client.open()
    return client.head(stream_id=stream) + window(stream, 0)


def too_much_content(client: RawClient) -> bytes:
    stream = client.open()
    head = client.head([*POST, (b"content-length", b"1")], end=False, stream_id=stream)
    return head + frame(DATA, 0, stream, b"two")


def content_after_the_end(client: RawClient) -> bytes:
    stream = client.open()
    return client.head(stream_id=stream) + frame(DATA, 0, stream, b"x")


def malformed(client: RawClient) -> bytes:
    return client.head([(b":method", b"GET")])


def repeats(data: bytes) -> Callable[[RawClient], bytes]:
    return lambda client: data


def continued(client: RawClient) -> bytes:
    """CONTINUATION frames of nothing (as CVE-2024-27316)."""
    if client.session.codec.unfinished_head is None:
        return frame(HEADERS, 1, client.open(), HEAD)
    return frame(CONTINUATION, 0, client.session.codec.unfinished_head)


FLOODS: dict[str, Callable[[RawClient], bytes]] = {
    "PING": repeats(ping()),
    "PING ACK": repeats(frame(PING, 1, 0, bytes(8))),
    "SETTINGS": repeats(settings()),
    "SETTINGS ACK": repeats(frame(SETTINGS, 1, 0)),
    "settings of the window": repeats(settings(_4=1) + settings(_4=70_000)),
    "settings of the table": repeats(settings(_1=0) + settings(_1=4096)),
    "PRIORITY": repeats(frame(PRIORITY, 0, 1, bytes(5))),
    "PRIORITY_UPDATE": repeats(frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1")),
    "WINDOW_UPDATE": repeats(window(0, 1)),
    "WINDOW_UPDATE of a stream that is over": repeats(window(3, 1)),
    "RST_STREAM of a stream that is over": repeats(frame(RST_STREAM, 0, 3, bytes(4))),
    "GOAWAY": repeats(frame(GOAWAY, 0, 0, bytes(8))),
    "unknown frames": repeats(frame(UNKNOWN, 0, 0)),
    "empty DATA": repeats(frame(DATA, 0, 1)),
    "DATA of padding alone": repeats(frame(DATA, PADDED, 1, b"\0")),
    "CONTINUATION": continued,
    "rapid reset": cancel,
    "windows widened by nothing": widened_by_nothing,
    "content beyond its length": too_much_content,
    "content after the end": content_after_the_end,
    "malformed requests": malformed,
    "DATA of a stream that was cancelled": repeats(frame(DATA, 0, 3, b"x")),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_sent_goaway_then_cut_off(flood: str) -> None:
    """With a request in progress, which a client that stops in time still gets answered."""
    client = RawClient()
    client.ask(POST, end=False)
    cancelled = client.ask(POST, end=False)
    client.send(frame(RST_STREAM, 0, cancelled, bytes(4)))
    act = FLOODS[flood]
    budget = max(H2_OVERHEAD_BURST, ABANDONED_PAGES * MAX_STREAMS_BIDI)
    told_after = 0
    for count in range(3 * budget):
        client.send(act(client))
        if client.session.going_away and not told_after:
            told_after = count
            assert not client.is_closed, "what runs is finished"
        if client.is_closed:
            break
    assert told_after >= ABANDONED_PAGES * MAX_STREAMS_BIDI // 2 - 1
    assert client.is_closed
    assert client.goaway == Code.ENHANCE_YOUR_CALM
    assert client.edge.refusals[Refusal.ABUSE] == 1


def test_tiny_windows_are_bounded() -> None:
    """A window of one byte at a time makes us send a frame for each (CVE-2019-9511, -9517)."""
    client = RawClient()
    client.send(settings(_4=0))
    stream = client.ask()
    client.origin[0].answer(bytes(100_000))
    client.run()
    for _ in range(3 * H2_OVERHEAD_BURST):
        client.send(window(stream, 1))
        if client.is_closed:
            break
    assert client.goaway == Code.ENHANCE_YOUR_CALM
    assert len(client.of(DATA)) < 2.5 * H2_OVERHEAD_BURST


def test_a_flood_that_stops_in_time_gets_its_answers() -> None:
    client = RawClient()
    client.ask()
    for _ in range(H2_OVERHEAD_BURST + 1):
        client.send(ping())
    assert client.session.going_away
    client.origin[0].answer(b"still here")
    client.run()
    client.read()
    assert client.of(DATA)[-1].payload == b"still here"
    assert not client.is_closed
    client.edge.clock += DRAIN_NOTICE + 1
    client.session.close_if_drained()
    assert client.transport.closed


# --- honest clients ---------------------------------------------------------------------------


def requests(client: RawClient, count: int, per_second: int) -> Iterator[int]:
    """As many requests, each answered; yields its stream before."""
    client.edge.answers_at_once = True
    for number in range(count):
        client.edge.clock += 1 / per_second
        stream = client.open()
        yield stream
        client.send(client.head(stream_id=stream))
        if not number % 100:
            client.frames.clear()
            client.transport.writes.clear()
            client._taken = 0


def test_a_browser_that_lives_long_meets_no_limit() -> None:
    """PRIORITY_UPDATE, WINDOW_UPDATE for stream and connection, a PING, and a reset of every tenth
    request after its answer."""
    client = RawClient()
    for stream in requests(client, 20_000, 500):
        client.send(
            frame(PRIORITY_UPDATE, 0, 0, stream.to_bytes(4, "big") + b"u=1"),
            window(0, 100), ping(), frame(UNKNOWN, 0, 0, b"grease"),
        )  # fmt: skip
        if stream > 1:
            client.send(window(stream - 2, 100))
            if not stream % 10:
                client.send(frame(RST_STREAM, 0, stream - 2, bytes(4)))
    assert client.session.requests == 20_000
    assert not client.session.going_away
    assert not client.is_closed


def test_a_download_with_small_windows_meets_no_limit() -> None:
    """Windows reopened by 1 KB for stream and connection, through 20 MB at once."""
    client = RawClient()
    client.send(settings(_4=1024))
    stream = client.ask()
    handler = client.origin[0].handler
    handler.response(Response(200))
    received = 0
    while received < 20_000_000:
        if client.session.codec.sender.unsent < 65_536:
            handler.data(bytes(65_536))
            client.run()
        client.send(window(stream, 1024), window(0, 1024))
        received += 1024
        client.frames.clear()
        client.transport.writes.clear()
        client._taken = 0
    assert not client.session.going_away
    assert not client.is_closed


def test_a_stream_of_small_messages_meets_no_limit() -> None:
    """gRPC both ways: each message of 20 bytes is a DATA frame, with two WINDOW_UPDATE and a PING
    for each that we send."""
    client = RawClient()
    stream = client.ask(POST, end=False)
    handler = client.origin[0].handler
    handler.response(Response(200))
    for number in range(20_000):
        client.edge.clock += 0.0001
        handler.data(b"a message of 20 byte")
        client.run()
        client.send(
            frame(DATA, 0, stream, b"a message of 20 byte"), window(stream, 20), window(0, 20),
            ping(),
        )  # fmt: skip
        if not number % 100:
            client.frames.clear()
            client.transport.writes.clear()
            client._taken = 0
    assert not client.session.going_away
    assert not client.is_closed


def test_a_map_page_that_drops_its_tiles_is_let_be() -> None:
    client = RawClient()
    for _ in range(500):
        tiles = [client.ask() for _ in range(40)]
        client.edge.clock += 0.4
        client.send(*[frame(RST_STREAM, 0, tile, b"\0\0\0\x08") for tile in tiles])
        assert all(tile.aborted for tile in client.edge.at_origin)
        client.edge.at_origin.clear()
    assert not client.session.going_away


def test_uploads_cut_short_by_early_answers_are_let_be() -> None:
    """The rest of each is on its way when the edge stops it."""
    client = RawClient()
    for _ in range(1000):
        stream = client.ask(POST, end=False)
        client.origin.pop().answer()
        client.run()
        client.send(frame(DATA, 0, stream, bytes(16_384)))
        client.loop.advance(H2_EARLY_RESPONSE_LEAD)
        client.send(*[frame(DATA, 0, stream, bytes(16_384)) for _ in range(4)])
    assert not client.session.going_away
    assert client.session.unread_bytes == 0
