"""HTTP/2 sessions against the library h2 as the client, or against frames written by hand."""

from __future__ import annotations

import gc

import pytest

from quicedge.config.limits import (
    DRAIN_NOTICE,
    H2_EARLY_RESPONSE_LEAD,
    H2_FRAMES_PER_TURN,
    H2_UNSENT_FRAMES,
    SEND_BUFFER_HIGH,
    STREAM_WINDOW,
)
from quicedge.downstream.response_account import ResponseAccount
from quicedge.http.errors import H2ErrorCode, H3ErrorCode
from quicedge.http.h2 import H2Connection, H2Settings, H2Stream
from quicedge.http.message import Response
from quicedge.proxy.response_memory import ResponseMemory
from quicedge.telemetry.outcomes import Outcome
from tests.support.h2client import H2Client, RawClient, frame
from tests.support.hostile_h2 import settings, window
from tests.support.sessions import GET, POST

MB = 1024 * 1024
DATA, HEADERS, RST_STREAM, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 7, 8
HEAD = [(b":method", b"HEAD"), *GET[1:]]


def test_a_request_and_its_response() -> None:
    client = H2Client()
    stream = client.ask([*GET, (b"accept", b"text/plain")])
    assert client.origin[0].request.fields == [(b"accept", b"text/plain")]
    assert client.origin[0].ended
    client.answer(content=b"hello", fields=[(b"content-type", b"text/plain")])
    assert client.heads[stream] == [(b":status", b"200"), (b"content-type", b"text/plain")]
    assert client.bodies[stream] == b"hello"
    assert client.ended == [stream]
    assert not client.session.streams
    assert not client.session.codec.streams


def test_content_and_trailers_both_ways() -> None:
    client = H2Client()
    stream = client.ask(POST, end=False)
    client.send(stream, b"one ")
    client.send(stream, b"two")
    client.h2.send_headers(stream, [(b"checksum", b"1")], end_stream=True)
    client.exchange()
    assert client.origin[0].content == b"one two"
    assert client.origin[0].ended
    client.answer(content=b"done", trailers=[(b"grpc-status", b"0")])
    assert client.bodies[stream] == b"done"
    assert client.trailers[stream] == [(b"grpc-status", b"0")]


def test_interim_responses_precede_the_final_one() -> None:
    client = H2Client()
    stream = client.ask()
    client.origin[0].handler.informational(Response(103, [(b"link", b"</a.css>")]))
    client.exchange()
    client.run()
    client.exchange()
    assert client.interim == [[(b":status", b"103"), (b"link", b"</a.css>")]]
    client.answer()
    assert client.status(stream) == b"200"


@pytest.mark.parametrize("fields", [GET, HEAD])
def test_a_response_without_content_ends_with_its_head(fields: list[tuple[bytes, bytes]]) -> None:
    client = RawClient()
    client.ask(fields)
    client.origin[0].answer(b"", [(b"content-length", b"0")])
    client.run()
    frames = [f for f in client.read() if f.stream_id]
    assert [(f.kind, f.flags) for f in frames] == [(HEADERS, 5)]


def test_an_early_response_asks_the_client_to_stop() -> None:
    client = H2Client()
    stream = client.ask(POST, end=False)
    client.answer(content=b"no, thanks")
    assert client.bodies[stream] == b"no, thanks"
    assert not client.session.streams
    assert not client.resets, "the client gets the response first"
    client.loop.advance(H2_EARLY_RESPONSE_LEAD)
    client.exchange()
    assert client.resets == {stream: H2ErrorCode.NO_ERROR}
    assert not client.session.codec.streams


def test_a_request_that_ends_after_its_response_is_not_reset() -> None:
    client = H2Client()
    stream = client.ask(POST, end=False)
    client.answer()
    client.send(stream, b"the rest", end=True)
    client.loop.advance(H2_EARLY_RESPONSE_LEAD)
    client.exchange()
    assert not client.resets
    assert not client.session.codec.streams


def test_a_client_that_gives_up_its_upload_gets_the_response_that_has_begun() -> None:
    client = H2Client()
    stream = client.ask([*POST, (b"content-length", b"1000")], end=False)
    origin = client.origin[0]
    origin.handler.informational(Response(103))
    origin.handler.response(Response(403))
    client.run()
    client.exchange()
    client.send(stream, b"a part", end=True)
    assert not origin.ended, "to the origin, the request stays incomplete"
    origin.handler.data(b"no, thanks")
    origin.handler.end(())
    client.run()
    client.exchange()
    assert client.bodies[stream] == b"no, thanks"
    assert stream in client.ended
    assert not client.resets
    assert not client.session.codec.streams
    assert client.session.unread_bytes == 0


def test_the_rest_of_a_request_with_an_early_response_is_bounded_by_its_window() -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    client.origin[0].answer()
    client.run()
    for _ in range(STREAM_WINDOW // 16_384 + 1):
        client.send(frame(DATA, 0, stream, bytes(16_384)))
    assert client.resets == {stream: H2ErrorCode.FLOW_CONTROL_ERROR}
    assert client.session.unread_bytes == 0


def test_content_still_on_its_way_after_an_early_response_costs_no_credit() -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    client.origin[0].answer()
    client.run()
    client.loop.advance(H2_EARLY_RESPONSE_LEAD)
    for _ in range(STREAM_WINDOW // 16_384):
        client.send(frame(DATA, 0, stream, bytes(16_384)))
    assert not client.is_closed
    assert client.session.unread_bytes == 0
    client.send(frame(DATA, 0, stream, bytes(16_384)))
    assert client.goaway == H2ErrorCode.FLOW_CONTROL_ERROR


def test_the_output_of_all_streams_of_a_turn_is_one_write() -> None:
    client = H2Client()
    for _ in range(10):
        client.h2.send_headers(client.h2.get_next_available_stream_id(), GET, end_stream=True)
    client.exchange()
    before = len(client.transport.writes)
    for request in client.origin:
        request.answer()
    client.run()
    assert len(client.transport.writes) == before + 1
    client.exchange()
    assert len(client.ended) == 10


# --- malformed requests -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b":method", b"GE T"), *GET[1:]], b"400"),
        ([*GET, (b"connection", b"close")], b"400"),
        ([*GET, (b"host", b"other")], b"400"),
        ([*GET, (b"content-length", b"5")], b"400"),
        ([*GET, (b"x", b"y" * 65_536)], b"431"),
        ([*GET, *[(b"a%d" % n, b"b") for n in range(200)]], b"431"),
        ([(b":method", b"CONNECT"), (b":authority", b"localhost:22")], b"501"),
    ],
)
def test_a_malformed_request_is_answered_and_costs_its_stream_alone(
    fields: list[tuple[bytes, bytes]], status: bytes
) -> None:
    client = RawClient()
    block = client.encoder.encode(fields)
    stream = client.open()
    client.send(
        frame(HEADERS, 1, stream, block[:16_384]),
        *[
            frame(9, 0, stream, block[start : start + 16_384])
            for start in range(16_384, len(block), 16_384)
        ],
        frame(9, 4, stream),
    )
    (head,) = client.of(HEADERS)
    assert (b":status", status) in client.decoder.decode(head.payload, raw=True)
    assert client.resets == ({stream: H2ErrorCode.PROTOCOL_ERROR} if status == b"400" else {})
    assert client.edge.rejections
    again = client.ask()
    assert [r.handler.stream_id for r in client.origin] == [again]
    assert not client.is_closed


def test_trailers_that_are_malformed_reset_the_stream() -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    client.send(frame(HEADERS, 5, stream, client.encoder.encode([(b":path", b"/")])))
    assert client.resets == {stream: H2ErrorCode.PROTOCOL_ERROR}
    assert client.origin[0].aborted
    assert not client.session.streams


@pytest.mark.parametrize("size", [3, 5])
def test_content_unlike_its_length_resets_the_stream(size: int) -> None:
    client = RawClient()
    stream = client.ask([*POST, (b"content-length", b"4")], end=False)
    client.send(frame(DATA, 1, stream, bytes(size)))
    assert client.resets == {stream: H2ErrorCode.PROTOCOL_ERROR}
    assert client.origin[0].aborted


def test_a_reset_by_the_client_aborts_the_origin() -> None:
    client = H2Client()
    stream = client.ask()
    client.h2.reset_stream(stream, H2ErrorCode.CANCEL)
    client.exchange()
    assert client.origin[0].aborted
    assert not client.session.streams
    assert not client.is_closed


def test_an_origin_that_fails_in_the_middle_resets_the_stream() -> None:
    client = H2Client()
    stream = client.ask()
    client.origin[0].handler.response(Response(200))
    client.origin[0].handler.data(b"some")
    client.run()
    exchange = client.session.streams[stream].exchange
    assert exchange is not None
    exchange.refuse(502, Outcome.ORIGIN_RESET)
    client.run()
    client.exchange()
    assert client.resets == {stream: H2ErrorCode.INTERNAL_ERROR}
    assert stream not in client.ended


# --- flow control -----------------------------------------------------------------------------


def test_an_origin_that_takes_nothing_bounds_what_the_client_may_send() -> None:
    client = H2Client()
    stream = client.ask(POST, end=False)
    client.origin[0].handler.pause_request()
    sent = 0
    while room := client.h2.local_flow_control_window(stream):
        size = min(room, 16_384)
        client.send(stream, bytes(size))
        sent += size
    assert sent == STREAM_WINDOW
    assert client.session.unread_bytes == STREAM_WINDOW
    client.origin[0].handler.resume_request()
    client.run()
    client.exchange()
    assert client.h2.local_flow_control_window(stream) == STREAM_WINDOW
    assert client.session.unread_bytes == 0


def test_a_client_may_use_the_default_windows_before_it_knows_ours() -> None:
    client = RawClient(H2Settings(stream_window=1000, connection_window=1000))
    stream = client.ask(POST, end=False)
    client.origin[0].handler.pause_request()
    for _ in range(3):
        client.send(frame(DATA, 0, stream, bytes(16_384)))
    assert not client.resets
    assert client.goaway is None


def test_a_client_that_grants_nothing_gets_nothing_and_its_origin_waits() -> None:
    client = RawClient()
    client.send(settings(_4=0))
    stream = client.ask()
    pauses: list[str] = []
    origin = client.origin[0]
    origin.pause = lambda: pauses.append("pause")  # type: ignore[method-assign]
    origin.resume = lambda: pauses.append("resume")  # type: ignore[method-assign]
    origin.handler.response(Response(200))
    for _ in range(10):
        origin.handler.data(bytes(65_536))
    client.run()
    assert [f.kind for f in client.read() if f.stream_id] == [HEADERS]
    assert pauses == ["pause"]
    client.send(window(stream, 3))
    assert client.of(DATA)[-1].payload == bytes(3)
    client.send(window(stream, MB), window(0, MB))
    client.run()
    client.read()
    assert pauses == ["pause", "resume"]
    assert sum(len(f.payload) for f in client.of(DATA)) == 655_360


def test_windows_may_become_negative() -> None:
    client = RawClient()
    stream = client.ask()
    handler = client.origin[0].handler
    handler.response(Response(200))
    handler.data(bytes(60_000))
    client.run()
    handler.data(bytes(20_000))
    client.run()
    client.read()
    assert sum(len(f.payload) for f in client.of(DATA)) == 65_535
    client.send(window(0, 100_000), settings(_4=10_000))  # its window is -55 535 now
    assert client.session.codec.streams[stream].window == -55_535
    client.send(window(stream, 55_535))
    assert sum(len(f.payload) for f in client.of(DATA)) == 65_535
    client.send(window(stream, 1))
    assert sum(len(f.payload) for f in client.of(DATA)) == 65_536
    client.send(settings(_4=80_000))
    assert sum(len(f.payload) for f in client.of(DATA)) == 80_000


def test_frames_are_as_large_as_the_client_allows() -> None:
    client = RawClient()
    client.send(settings(_4=MB, _5=100_000), window(0, MB))
    client.ask()
    client.origin[0].answer(bytes(250_000))
    client.run()
    client.read()
    assert [len(f.payload) for f in client.of(DATA)] == [100_000, 100_000, 50_000]


def test_content_is_cut_at_frames_whatever_the_pieces() -> None:
    client = H2Client()
    stream = client.ask()
    handler = client.origin[0].handler
    handler.response(Response(200))
    content = bytes(range(256)) * 800
    for start in range(0, len(content), 7001):
        handler.data(content[start : start + 7001])
    handler.end(())
    client.run()
    client.exchange()
    client.run()
    client.exchange()
    assert client.bodies[stream] == content
    assert stream in client.ended


def test_a_client_that_does_not_read_holds_back_its_origins() -> None:
    client = H2Client()
    client.h2.increment_flow_control_window(100 * MB)
    client.exchange()
    stream = client.ask()
    client.h2.increment_flow_control_window(100 * MB, stream)
    client.exchange()
    client.transport.stuck = True
    origin = client.origin[0]
    paused: list[bool] = []
    origin.pause = lambda: paused.append(True)  # type: ignore[method-assign]
    origin.resume = lambda: paused.clear()  # type: ignore[method-assign]
    origin.handler.response(Response(200))
    written = 0
    while not paused:
        origin.handler.data(bytes(65_536))
        client.run()
        written += 65_536
    assert client.session.writing_paused
    assert written <= 2 * SEND_BUFFER_HIGH + client.transport.high + 65_536
    client.transport.take()
    client.transport.stuck = False
    client.run()
    assert not paused


# --- priority ---------------------------------------------------------------------------------


def content_order(client: RawClient) -> list[int]:
    """The streams of DATA frames in the order in which they ended."""
    return [f.stream_id for f in client.of(DATA) if f.flags & 1]


def answer_all(client: RawClient, size: int = 100_000) -> None:
    for request in list(client.origin):
        request.answer(bytes(size))
    client.run()
    client.read()
    client.send(window(0, 10 * MB))
    client.run()
    client.read()


def wide(client: RawClient) -> RawClient:
    client.send(settings(_4=10 * MB))
    return client


def test_urgent_responses_are_sent_first() -> None:
    client = wide(RawClient())
    low = client.ask([*GET, (b"priority", b"u=6")])
    normal = client.ask()
    high = client.ask([*GET, (b"priority", b"u=0")])
    answer_all(client)
    assert content_order(client) == [high, normal, low]


def test_responses_that_are_not_incremental_are_sent_one_after_the_other() -> None:
    client = wide(RawClient())
    streams = [client.ask([*GET, (b"priority", b"u=2")]) for _ in range(3)]
    answer_all(client)
    ids = [f.stream_id for f in client.of(DATA)]
    assert ids == sorted(ids)
    assert content_order(client) == streams


def test_incremental_responses_take_turns() -> None:
    client = wide(RawClient())
    streams = {client.ask([*GET, (b"priority", b"u=2, i")]) for _ in range(3)}
    answer_all(client, 300_000)
    ends = [
        max(n for n, f in enumerate(client.of(DATA)) if f.stream_id == stream) for stream in streams
    ]
    assert max(ends) - min(ends) <= 20, "no one waits for the whole of another"


def test_a_priority_update_counts_before_and_after_its_request() -> None:
    def update(stream_id: int, value: bytes) -> bytes:
        return frame(0x10, 0, 0, stream_id.to_bytes(4, "big") + value)

    client = wide(RawClient())
    client.send(update(5, b"u=0"))
    first, second = client.ask(), client.ask()
    third = client.ask([*GET, (b"priority", b"u=7")])
    assert third == 5
    client.send(update(second, b"u=5"))
    answer_all(client)
    assert content_order(client) == [third, first, second]


# --- ends -------------------------------------------------------------------------------------


def test_a_drain_in_two_steps_finishes_what_runs() -> None:
    client = RawClient()
    client.ask()
    client.session.announce_drain()
    client.run()
    client.read()
    second = client.ask()
    client.session.drain()
    client.run()
    client.read()
    last = [int.from_bytes(f.payload[:4], "big") for f in client.of(GOAWAY)]
    assert last == [2**31 - 1, second]
    refused = client.ask()
    assert client.resets == {refused: H2ErrorCode.REFUSED_STREAM}
    assert len(client.origin) == 2
    assert not client.is_closed
    for request in client.origin:
        request.answer()
    client.run()
    assert client.transport.closed
    client.read()
    assert client.goaway == H2ErrorCode.NO_ERROR
    assert len([f for f in client.of(DATA) if f.flags & 1]) == 2
    last = [int.from_bytes(f.payload[:4], "big") for f in client.of(GOAWAY)]
    assert last == [2**31 - 1, second], "it never grows, and is not repeated"


def test_a_connection_closed_during_a_drain_does_not_accept_what_it_has_refused() -> None:
    client = RawClient()
    first = client.ask()
    client.session.drain()
    client.run()
    client.ask()
    client.session.close_for_abuse("too much")
    client.read()
    last = [int.from_bytes(f.payload[:4], "big") for f in client.of(GOAWAY)]
    assert last == [first, first]
    assert client.goaway == H2ErrorCode.ENHANCE_YOUR_CALM


def test_a_drained_connection_closes_when_its_last_request_is_cancelled() -> None:
    client = RawClient()
    stream = client.ask()
    client.session.drain()
    client.run()
    client.send(frame(RST_STREAM, 0, stream, bytes(4)))
    client.run()
    assert client.transport.closed


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
def test_a_lost_connection_ends_its_exchanges(error: Exception | None) -> None:
    client = H2Client()
    client.ask()
    exchange = client.session.streams[1].exchange
    assert exchange is not None
    client.lose(error)
    assert client.origin[0].aborted
    assert exchange.outcome is Outcome.CLIENT_GONE
    assert client.ended_sessions == [client.session]
    assert client.session.memory.account.held == 0


def test_a_long_response_is_delivered_once_the_kernel_says_so() -> None:
    client = H2Client()
    client.ask()
    exchange = client.session.streams[1].exchange
    assert exchange is not None
    client.connection.unacknowledged = 1000
    client.answer(content=bytes(65_536 * 2))
    client.loop.advance(0.1)
    assert exchange.ended_at is None
    client.connection.unacknowledged = 0
    client.loop.advance(1.0)
    assert exchange.outcome is Outcome.COMPLETE
    assert exchange.bytes_delivered == 65_536 * 2
    assert not client.session.streams


def test_a_close_by_the_edge_says_why() -> None:
    client = RawClient()
    client.ask()
    client.session.close(H3ErrorCode.EXCESSIVE_LOAD, "out of memory")
    client.read()
    assert client.goaway == H2ErrorCode.ENHANCE_YOUR_CALM
    assert client.of(GOAWAY)[0].payload[8:] == b"out of memory"
    assert client.transport.closed
    assert client.origin[0].aborted


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    client = RawClient()
    client.session.check_idle(59.0, 60.0)
    client.ask()
    client.session.check_idle(1000.0, 60.0)
    assert not client.is_closed
    client.origin[0].answer()
    client.run()
    client.session.check_idle(61.0, 60.0)
    assert client.transport.closed


def test_a_fault_of_ours_costs_one_connection_alone() -> None:
    faults: list[object] = []
    client, other = RawClient(), RawClient()
    client.loop.call_exception_handler = faults.append  # type: ignore[attr-defined]
    client.session.codec._handler = None  # type: ignore[assignment]
    client.ask()
    assert client.goaway == H2ErrorCode.INTERNAL_ERROR
    assert faults
    other.ask()
    assert len(other.origin) == 1


def test_a_fault_while_writing_costs_one_connection_alone() -> None:
    faults: list[object] = []
    client = RawClient()
    client.loop.call_exception_handler = faults.append  # type: ignore[attr-defined]
    client.ask()
    client.session.delivery.bytes_written = None  # type: ignore[assignment]
    client.origin[0].answer()
    client.run()
    client.read()
    assert faults
    assert client.goaway == H2ErrorCode.INTERNAL_ERROR


def test_memory_is_given_back_when_a_connection_is_idle() -> None:
    client = RawClient()
    client.send(settings(_4=MB), window(0, MB))
    client.transport.stuck = True
    client.ask()
    client.origin[0].answer(bytes(60_000))
    client.session.settle_memory()
    client.run()
    client.session.settle_memory()
    assert client.session.memory.account.held >= 60_000
    client.transport.buffered = 0
    client.session.check_idle(1.0, 60.0)
    assert client.session.memory.account.held == 0


def test_cancelled_requests_reserve_no_memory_for_their_responses() -> None:
    client = RawClient()
    streams = [client.ask() for _ in range(40)]
    assert client.session.memory.account.held >= 30 * SEND_BUFFER_HIGH
    for stream in streams:
        client.send(frame(RST_STREAM, 0, stream, bytes(4)))
    assert client.session.memory.account.held == 0


def test_a_connection_closed_for_abuse_reserves_no_memory_while_it_ends() -> None:
    client = RawClient()
    for _ in range(40):
        client.ask()
    client.session.close_for_abuse("test")
    assert client.session.memory.account.held == 0


def test_requests_wait_for_memory_and_run_when_there_is_some() -> None:
    client = RawClient()
    session = client.session
    memory = ResponseMemory(MB, lambda call: call())
    session.memory = session.held._memory = ResponseAccount(memory, session.share)
    session.memory.account.settle(MB)
    stream = client.ask(POST, end=False)
    client.send(frame(DATA, 1, stream, b"body"))
    assert not client.origin
    session.memory.account.settle(0)
    session.check_held(0.0)
    assert client.origin[0].content == b"body"
    assert client.origin[0].ended


def test_a_request_that_waits_for_memory_and_is_cancelled_is_forgotten() -> None:
    client = RawClient()
    session = client.session
    memory = ResponseMemory(MB, lambda call: call())
    session.memory = session.held._memory = ResponseAccount(memory, session.share)
    session.memory.account.settle(MB)
    stream = client.ask(POST, end=False)
    client.send(frame(DATA, 0, stream, b"body"), frame(RST_STREAM, 0, stream, bytes(4)))
    assert not session.held
    assert session.unread_bytes == 0


def living(kind: type) -> list[object]:
    return [thing for thing in gc.get_objects() if isinstance(thing, kind)]


def test_requests_and_connections_leave_no_garbage_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        client = RawClient()
        for fields in (GET, POST, [*GET, (b"connection", b"close")]) * 5:
            client.ask(fields)
        client.send(frame(RST_STREAM, 0, 1, bytes(4)))
        for request in client.origin:
            request.answer()
            del request.handler
        client.run()
        client.origin.clear()
        client.edge.rejections.clear()  # their tracebacks hold frames
        del request
        assert not living(H2Stream)
        client.ask()
        del client.origin.pop().handler
        client.lose()
        assert not living(H2Connection)
        assert not living(H2Stream)
    finally:
        gc.enable()


# --- turns of the loop ------------------------------------------------------------------------


def test_many_small_frames_are_handled_in_turns() -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    size = 10 * H2_FRAMES_PER_TURN
    client.session.data_received(frame(DATA, 0, stream, b"x") * size)
    assert len(client.origin[0].content) == H2_FRAMES_PER_TURN
    assert client.transport.reading_paused
    client.run()
    assert len(client.origin[0].content) == size
    assert not client.transport.reading_paused


def test_small_content_that_arrives_together_is_delivered_together() -> None:
    client = RawClient()
    streams = [client.ask(POST, end=False) for _ in range(2)]
    pieces: list[bytes] = []
    for request in client.origin:
        request.write = pieces.append  # type: ignore[method-assign, assignment]
    client.send(*[frame(DATA, 0, stream, b"x") for stream in streams * 100])
    assert pieces == [b"x" * 100] * 2


def test_content_is_delivered_before_its_frame_is_complete() -> None:
    client = RawClient()
    stream = client.ask(POST, end=False)
    data = frame(DATA, 1, stream, bytes(16_384))
    client.send(data[:5000])
    assert len(client.origin[0].content) == 5000 - 9
    client.send(data[5000:])
    assert len(client.origin[0].content) == 16_384
    assert client.origin[0].ended


def test_replies_that_nobody_reads_are_bounded() -> None:
    client = RawClient()
    client.transport.stuck = True
    sent = 0
    while not client.is_closed and sent < 10 * H2_UNSENT_FRAMES:
        stream = client.ask()
        client.origin.pop().handler.response(Response(200, [(b"x", bytes(range(33, 127)) * 100)]))
        client.run()
        client.send(frame(RST_STREAM, 0, stream, bytes(4)))
        sent = client.transport.buffered
    assert client.transport.aborted
    assert sent < client.transport.high + H2_UNSENT_FRAMES + 65_536


def test_a_client_that_is_sent_away_gets_time_to_learn_it() -> None:
    client = RawClient()
    client.session.on_exhausted("too much")
    client.run()
    assert client.session.going_away
    assert not client.is_closed
    client.edge.clock += DRAIN_NOTICE + 0.1
    client.session.close_if_drained()
    client.read()
    assert client.transport.closed
    assert client.goaway == H2ErrorCode.ENHANCE_YOUR_CALM
    assert client.edge.closed == ["too much"]
