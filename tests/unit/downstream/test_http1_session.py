"""The HTTP/1.1 session: what reaches the origin, what is answered, when connections persist."""

from __future__ import annotations

import pytest

from quicedge.config.limits import (
    H1_CHUNK_BURST,
    H1_CHUNK_RATE,
    H1_PIPELINED,
    H1_UNTAKEN_HIGH,
)
from quicedge.config.schema import Limits
from quicedge.http.message import Response
from quicedge.telemetry.outcomes import Outcome, Refusal
from tests.support.h1client import GET, H1Client, chunked, get, post

LIMITS = Limits()
OK = [(b"content-length", b"2")]


@pytest.fixture
def client() -> H1Client:
    return H1Client()


# --- requests, one after the other ----------------------------------------------------------------


def test_a_request_is_answered_with_one_write_and_the_connection_persists(client: H1Client) -> None:
    for _ in range(3):
        client.send(GET)
        client.answer(fields=OK)
    assert len(client.transport.writes) == 3
    assert client.transport.writes[0] == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    assert [request.handler.outcome for request in client.origin] == [Outcome.COMPLETE] * 3
    assert not client.is_over


def test_pipelined_requests_are_answered_in_order_one_at_a_time(client: H1Client) -> None:
    client.send(get("/1") + post(b"body") + get("/3"))
    for expected in (1, 2, 3):
        assert len(client.origin) == expected
        client.answer(content=b"%d" % expected, fields=[(b"content-length", b"1")])
    assert [reply.body for reply in client.replies()] == [b"1", b"2", b"3"]
    assert bytes(client.origin[1].content) == b"body"


def test_a_flood_of_pipelined_requests_stops_reading(client: H1Client) -> None:
    client.send(GET * (2 * H1_PIPELINED // len(GET)))
    assert client.transport.reading_paused
    assert len(client.origin) == 1
    while client.transport.reading_paused:
        client.answer(fields=OK)
    assert client.session.unread_bytes <= H1_PIPELINED


def test_a_head_that_comes_octet_by_octet_is_one_request(client: H1Client) -> None:
    for octet in get("/slow", "X-Field: value"):
        client.send(bytes((octet,)))
    assert [request.request.path for request in client.origin] == [b"/slow"]


def test_an_empty_line_before_a_request_is_ignored(client: H1Client) -> None:
    client.send(b"\r\n" + GET)
    assert len(client.origin) == 1


@pytest.mark.parametrize(
    ("request_", "persists"),
    [
        (GET, True),
        (get("/", "Connection: close"), False),
        (get("/", "Connection: keep-alive, Close"), False),
        (get("/", version="1.0"), False),
        (get("/", "Connection: Keep-Alive", version="1.0"), True),
        (b"GET / HTTP/1.0\r\n\r\n", False),
    ],
    ids=["1.1", "close", "close among others", "1.0", "1.0 keep-alive", "1.0 without host"],
)
def test_whether_a_connection_persists(client: H1Client, request_: bytes, persists: bool) -> None:
    client.send(request_)
    client.answer(fields=OK)
    assert client.is_over is not persists
    assert (client.reply.fields.get("connection") == "close") is not persists
    assert client.reply.body == b"ok"


def test_an_http_1_0_request_without_host_is_for_the_address_it_was_sent_to(
    client: H1Client,
) -> None:
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.origin[0].request.authority == b"192.0.2.7"


# --- responses ------------------------------------------------------------------------------------


def test_a_response_of_unknown_length_is_chunked(client: H1Client) -> None:
    client.send(GET)
    client.answer(content=b"hello")
    assert client.received.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert not client.is_over


def test_a_response_of_unknown_length_to_http_1_0_ends_with_the_connection(
    client: H1Client,
) -> None:
    client.send(get("/", "Connection: keep-alive", version="1.0"))
    client.answer(content=b"hello")
    assert client.received.endswith(b"connection: close\r\n\r\nhello")
    assert client.transport.closed


@pytest.mark.parametrize("lines", [(), ("TE: trailers", "Connection: TE")], ids=["without", "with"])
def test_trailers_are_sent_to_who_takes_them(client: H1Client, lines: tuple[str, ...]) -> None:
    client.send(get("/", *lines))
    client.answer(trailers=[(b"x-sum", b"1"), (b"content-length", b"9")])
    assert (b"x-sum: 1" in client.received) is bool(lines)
    assert b"content-length" not in client.received
    assert client.reply.body == b"ok"


def test_head_and_bodiless_statuses_have_no_content(client: H1Client) -> None:
    client.send(get("/", method="HEAD"))
    client.origin[-1].handler.response(Response(200, [(b"content-length", b"500")]))
    client.origin[-1].handler.end(())
    for status in (204, 304):
        client.send(GET)
        client.origin[-1].handler.response(Response(status, []))
        client.origin[-1].handler.data(b"must not be sent")
        client.origin[-1].handler.end(())
    client.loop.run()
    assert client.received == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n"
    )
    assert not client.is_over


@pytest.mark.parametrize(
    ("content", "length"), [(b"more than two", b"2"), (b"1", b"2")], ids=["long", "short"]
)
def test_content_that_contradicts_its_length_ends_the_connection(
    client: H1Client, content: bytes, length: bytes
) -> None:
    client.send(GET + get("/next"))
    client.answer(content=content, fields=[(b"content-length", length)])
    assert client.is_over
    assert client.received.count(b"HTTP/1.1") == 1
    assert content[2:] == b"" or content[2:] not in client.received
    client.lose()
    assert client.origin[0].handler.outcome is Outcome.CONNECTION_CLOSED


def test_a_faulty_length_is_left_out_and_the_response_chunked(client: H1Client) -> None:
    client.send(GET)
    client.answer(fields=[(b"content-length", b"2"), (b"content-length", b"3")])
    assert client.reply.body == b"ok"
    assert client.reply.fields["transfer-encoding"] == "chunked"


def test_interim_responses_are_for_http_1_1(client: H1Client) -> None:
    client.send(GET)
    client.origin[-1].handler.informational(Response(103, [(b"link", b"</a>")]))
    client.answer(fields=OK)
    client.send(get("/", version="1.0"))
    client.origin[-1].handler.informational(Response(103, [(b"link", b"</a>")]))
    client.answer(fields=OK)
    assert client.received.count(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n") == 1


def test_an_origin_that_fails_in_the_middle_leaves_no_complete_response(client: H1Client) -> None:
    from quicedge.http.errors import OriginFailure
    from quicedge.upstream.base import UpstreamError

    for request, abruptly in ((GET, False), (get("/", version="1.0"), True)):
        client = H1Client()
        client.send(request)
        handler = client.origin[-1].handler
        handler.response(Response(200, []))
        handler.data(b"half")
        client.loop.run()
        handler.failed(UpstreamError(OriginFailure.RESET))
        assert client.is_over
        assert not client.received.endswith(b"0\r\n\r\n")
        # Where the end of the connection is the end of the content, only a reset tells.
        assert client.transport.aborted is abruptly


# --- content --------------------------------------------------------------------------------------


def test_content_of_both_framings_arrives_with_its_trailers(client: H1Client) -> None:
    client.send(post(b"x" * 100))
    client.answer(fields=OK)
    client.send(chunked(b"one", b"two" * 5000, trailers="X-Sum: 9\r\n"))
    assert [len(request.content) for request in client.origin] == [100, 15003]
    assert all(request.ended for request in client.origin)


def test_reading_stops_while_the_origin_does_not_take_content(client: H1Client) -> None:
    client.send(get("/", "Content-Length: 9999999", method="PUT"))
    exchange = client.origin[0].handler
    exchange.pause_request()
    while not client.transport.reading_paused:
        client.send(bytes(65536))
    assert client.session.unread_bytes <= H1_UNTAKEN_HIGH + 65536
    exchange.resume_request()
    assert not client.transport.reading_paused
    assert client.session.unread_bytes == 0


def test_an_origin_stops_while_the_client_does_not_read(client: H1Client) -> None:
    client.send(GET)
    client.transport.stuck = True
    request = client.origin[0]
    paused: list[bool] = []
    request.pause = lambda: paused.append(True)  # type: ignore[method-assign]
    request.resume = lambda: paused.append(False)  # type: ignore[method-assign]
    request.handler.response(Response(200, []))
    while not paused:
        request.handler.data(bytes(65536))
    assert client.transport.buffered < 512 * 1024
    client.transport.take()
    assert paused[-1] is False


def test_who_sends_ahead_but_does_not_read_is_not_answered_further(client: H1Client) -> None:
    client.transport.stuck = True
    client.send(GET * 500)
    for _ in range(500):
        if client.origin[-1].handler.outcome is None:
            client.answer(content=bytes(10_000), fields=[(b"content-length", b"10000")])
    assert client.transport.buffered < 300_000
    assert len(client.origin) < 50
    client.transport.stuck = False
    client.transport.take()
    client.loop.run()
    while client.origin[-1].handler.outcome is None:
        client.answer(content=bytes(10_000), fields=[(b"content-length", b"10000")])
    assert len(client.replies()) == 500


def test_a_response_is_delivered_when_the_client_has_all_of_it(client: H1Client) -> None:
    client.send(GET)
    client.transport.stuck = True
    client.answer(content=bytes(500_000))
    exchange = client.origin[0].handler
    client.loop.advance(30)
    assert exchange.ended_at is None
    assert client.session.is_busy
    client.transport.take()
    client.loop.advance(1)
    assert exchange.outcome is Outcome.COMPLETE
    assert exchange.ended_at is not None
    assert not client.session.is_busy


def test_a_request_after_a_long_response_is_answered_at_once(client: H1Client) -> None:
    client.send(GET)
    client.transport.stuck = True
    client.answer(content=bytes(100_000))
    client.send(get("/next"))
    assert len(client.origin) == 2
    assert client.origin[0].handler.outcome is Outcome.COMPLETE


def test_a_client_that_leaves_in_the_middle_of_a_response_is_seen(client: H1Client) -> None:
    client.send(GET)
    client.origin[0].handler.response(Response(200, []))
    client.origin[0].handler.data(b"some")
    client.loop.run()
    client.lose(ConnectionResetError("reset"))
    assert client.origin[0].aborted
    assert client.origin[0].handler.outcome is Outcome.CLIENT_GONE
    assert client.ended_sessions == [client.session]


# --- half-closed connections ----------------------------------------------------------------------


def test_a_client_that_closes_its_half_gets_all_its_answers(client: H1Client) -> None:
    client.send(get("/1") + get("/2"))
    assert client.end()
    client.answer(fields=OK)
    client.answer(fields=OK)
    assert [reply.status for reply in client.replies()] == [200, 200]
    assert client.replies()[1].fields["connection"] == "close"
    assert client.is_over


def test_the_end_within_content_aborts_the_request(client: H1Client) -> None:
    client.send(get("/", "Content-Length: 10", method="POST") + b"half")
    assert not client.end()
    assert client.origin[0].aborted
    assert client.origin[0].handler.outcome is Outcome.CLIENT_ABORTED
    assert client.is_over


def test_a_client_that_gives_up_its_upload_gets_the_response_that_has_begun(
    client: H1Client,
) -> None:
    client.send(get("/", "Content-Length: 10", method="POST") + b"half")
    client.origin[0].handler.response(Response(403, [(b"content-length", b"10")]))
    client.loop.run()
    assert client.end()
    assert not client.origin[0].ended, "to the origin, the request stays incomplete"
    client.origin[0].handler.data(b"no, thanks")
    client.origin[0].handler.end(())
    client.loop.run()
    assert client.replies()[0].body == b"no, thanks"
    assert client.origin[0].handler.outcome is Outcome.COMPLETE
    assert client.is_over


def test_the_end_within_a_head_or_between_requests_closes() -> None:
    for sent in (b"", b"GET / HTTP/1.1\r\nHo"):
        client = H1Client()
        client.send(sent) if sent else None
        assert not client.end()
        assert client.is_over
        assert not client.origin


# --- early responses ------------------------------------------------------------------------------


def test_a_short_rest_of_a_refused_request_is_dropped_and_the_connection_persists(
    client: H1Client,
) -> None:
    client.send(get("/", "Content-Length: 1000", method="POST"))
    client.origin[0].handler.refuse(403, Outcome.DENIED)
    client.loop.run()
    client.send(bytes(999))
    assert len(client.origin) == 1
    client.send(b"." + GET)
    assert len(client.origin) == 2
    assert not client.is_over


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 10000000",),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: 10", "Expect: 100-continue"),
    ],
    ids=["long", "of unknown length", "that may not come"],
)
def test_after_an_early_response_a_connection_that_cannot_go_on_closes(
    client: H1Client, lines: tuple[str, ...]
) -> None:
    client.send(get("/", *lines, method="POST"))
    client.origin[0].handler.refuse(413, Outcome.REQUEST_TOO_LARGE)
    client.loop.run()
    assert client.reply.status == 413
    assert client.reply.fields["connection"] == "close"
    assert client.is_over
    client.send(b"10\r\n" + GET)
    assert len(client.origin) == 1


def test_a_connection_persists_after_content_that_waited_for_100(client: H1Client) -> None:
    client.send(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
    client.origin[0].handler.informational(Response(100))
    client.loop.run()
    client.send(b"hi")
    client.answer(fields=OK)
    assert client.received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert not client.is_over


def test_a_response_that_ends_before_its_request_is_complete_and_delivered(
    client: H1Client,
) -> None:
    client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
    client.answer(fields=OK)
    assert client.reply.body == b"ok"
    assert client.is_over
    assert client.origin[0].handler.outcome is Outcome.COMPLETE


# --- malformed requests ---------------------------------------------------------------------------


def test_a_malformed_head_is_answered_logged_and_nothing_after_it_is_read(
    client: H1Client,
) -> None:
    client.send(GET + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n" + get("/smuggled"))
    client.answer(fields=OK)
    client.send(get("/smuggled"))
    assert [reply.status for reply in client.replies()] == [200, 400]
    assert client.replies()[1].fields["connection"] == "close"
    assert "date" in client.replies()[1].fields
    assert len(client.origin) == 1
    assert client.is_over
    assert [error.status_hint for error in client.edge.rejections] == [400]


def test_malformed_chunks_are_answered_before_and_break_off_after_the_response_has_begun() -> None:
    for started in (False, True):
        client = H1Client()
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
        if started:
            client.origin[0].handler.response(Response(200, []))
        client.send(b"xyz\r\n" + get("/smuggled"))
        assert client.received.startswith(b"HTTP/1.1 200" if started else b"HTTP/1.1 400")
        assert not client.received.endswith(b"0\r\n\r\n")
        assert len(client.origin) == 1
        assert client.origin[0].aborted
        assert client.origin[0].handler.outcome is Outcome.MALFORMED
        assert client.is_over


def test_a_flood_of_tiny_chunks_is_cut_off(client: H1Client) -> None:
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(10):
        if not client.is_over:
            client.send(b"1\r\nx\r\n" * (H1_CHUNK_BURST // 5))
    assert client.is_over
    assert client.reply.status == 400
    assert client.edge.refusals[Refusal.ABUSE] == 1


@pytest.mark.parametrize(("size", "per_second"), [(1, H1_CHUNK_RATE), (16, 1_000_000)])
def test_honest_streams_of_small_chunks_are_let_be(size: int, per_second: float) -> None:
    client = H1Client()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    count = int(min(per_second, 20_000)) // 10
    for _ in range(200):
        client.edge.clock += 0.1
        client.send((b"%x\r\n%b\r\n" % (size, b"x" * size)) * count)
    assert not client.is_over
    assert client.origin[0].handler.bytes_received == 200 * count * size


# --- time and the worker --------------------------------------------------------------------------


def tick(client: H1Client, seconds: int) -> None:
    """What the worker does once per second."""
    session = client.session
    for _ in range(seconds):
        client.edge.clock += 1.0
        client.loop.advance(1.0)
        if session.is_busy:
            session.timeouts.check(session, LIMITS, client.edge.clock)
        session.check_idle(client.edge.clock, 60.0)
        client.loop.run()


def test_a_slow_head_is_answered_408(client: H1Client) -> None:
    client.send(b"GET / HTTP/1.1\r\n")
    tick(client, int(LIMITS.header_timeout) + 3)
    assert client.reply.status == 408
    assert client.is_over


def test_slow_content_is_answered_408(client: H1Client) -> None:
    client.send(get("/", "Content-Length: 100000", method="POST"))
    for _ in range(int(LIMITS.body_timeout) + 3):
        client.send(b"x")
        tick(client, 1)
        if client.is_over:
            break
    assert client.reply.status == 408
    assert client.origin[0].aborted


def test_a_client_that_does_not_read_is_disconnected(client: H1Client) -> None:
    client.send(GET)
    client.transport.stuck = True
    client.answer(content=bytes(500_000))
    tick(client, int(LIMITS.response_timeout) + 3)
    assert client.transport.aborted
    assert client.origin[0].handler.outcome is Outcome.RESPONSE_TIMEOUT


def test_an_idle_connection_is_closed_and_a_used_one_is_not(client: H1Client) -> None:
    for _ in range(100):
        tick(client, 50)
        client.send(GET)
        client.answer(fields=OK)
    assert not client.is_over
    tick(client, 62)
    assert client.is_over


def test_a_drain_answers_what_runs_and_closes(client: H1Client) -> None:
    client.send(GET)
    client.session.announce_drain()
    client.session.drain()
    assert not client.is_over
    client.answer(fields=OK)
    assert client.reply.fields["connection"] == "close"
    assert client.is_over


def test_a_drain_closes_idle_connections(client: H1Client) -> None:
    client.send(GET)
    client.answer(fields=OK)
    client.session.announce_drain()
    assert not client.is_over
    client.session.drain()
    assert client.is_over


def test_a_request_waits_while_memory_is_short(client: H1Client) -> None:
    pool = client.edge.policy.response_memory.pool
    capacity, pool.capacity = pool.capacity, 0
    client.send(post(b"content") + get("/next"))
    assert not client.origin
    pool.capacity = capacity
    client.session.memory_is_free()
    assert bytes(client.origin[0].content) == b"content"
    assert client.origin[0].ended
    client.loop.run()
    client.answer(fields=OK)
    assert len(client.origin) == 2


def test_an_upload_that_waited_for_memory_is_read_to_its_end(client: H1Client) -> None:
    pool = client.edge.policy.response_memory.pool
    capacity, pool.capacity = pool.capacity, 0
    content = bytes(2 * H1_PIPELINED)
    client.send(post(content)[: -len(content) // 4])
    assert client.transport.reading_paused
    pool.capacity = capacity
    client.session.memory_is_free()
    client.loop.run()
    assert not client.transport.reading_paused
    client.send(content[: len(content) // 4])
    assert client.origin[0].ended
    assert bytes(client.origin[0].content) == content


def test_a_request_that_waits_too_long_for_memory_is_refused(client: H1Client) -> None:
    client.edge.policy.response_memory.pool.capacity = 0
    client.send(post(b"content"))
    client.edge.clock += 31
    client.session.check_held(client.edge.clock)
    client.loop.run()
    assert client.reply.status == 503
    assert not client.is_over
