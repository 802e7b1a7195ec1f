"""What a session answers, resets and stops, request by request."""

from __future__ import annotations

from typing import NamedTuple

import pylsqpack
import pytest

from quicedge.config.limits import SEND_BUFFER_HIGH
from quicedge.http.errors import H3ErrorCode
from quicedge.http.frames import FrameType, Setting, decode_varint, encode_varint
from quicedge.http.message import Field, Fields, Response
from quicedge.quic import events
from quicedge.telemetry.outcomes import Outcome
from tests.support.sessions import GET, POST, Client, frame, head

SECTION_LIMIT = f"_{Setting.MAX_FIELD_SECTION_SIZE.value}"


class Answer(NamedTuple):
    sections: list[Fields]
    content: bytes

    @property
    def status(self) -> int:
        return int(dict(self.sections[0])[b":status"])


def answer(client: Client, stream_id: int) -> Answer:
    data, at = client.connection.sent.get(stream_id, b""), 0
    sections, content = [], b""
    while at < len(data):
        kind, at = decode_varint(data, at)
        size, at = decode_varint(data, at)
        payload, at = data[at : at + size], at + size
        if kind == FrameType.HEADERS:
            sections.append(pylsqpack.Decoder(0, 0).feed_header(stream_id, payload)[1])
        elif kind == FrameType.DATA:
            content += payload
    return Answer(sections, content)


# --- sections that the client, or QPACK, does not take --------------------------------------------


@pytest.mark.parametrize(
    ("limit", "size"), [(1_000, 5_000), (None, 65_536)], ids=["the client's", "QPACK's"]
)
def test_a_response_head_beyond_the_limit_becomes_502(limit: int | None, size: int) -> None:
    client = Client(**({} if limit is None else {SECTION_LIMIT: limit}))
    stream_id = client.ask()
    (request,) = client.edge.at_origin
    request.answer(fields=[(b"x-large", b"a" * size)])
    got = answer(client, stream_id)
    assert got.status == 502
    assert sum(len(name) + len(value) + 32 for name, value in got.sections[0]) <= 1_000
    assert stream_id in client.connection.ended
    assert request.aborted
    assert request.handler.outcome is Outcome.RESPONSE_TOO_LARGE
    again = client.ask()
    client.edge.at_origin[-1].answer()
    assert answer(client, again).status == 200


def test_a_client_that_takes_no_head_at_all_gets_a_reset() -> None:
    client = Client(**{SECTION_LIMIT: 40})
    answered, malformed = client.ask(), client.ask(head(GET[:1]))
    client.edge.at_origin[0].answer()
    for stream_id in (answered, malformed):
        assert client.connection.resets[stream_id] == H3ErrorCode.INTERNAL_ERROR
        assert not answer(client, stream_id).sections
    assert client.closed is None


def test_interim_responses_and_trailers_beyond_the_limit_are_left_out() -> None:
    client = Client(**{SECTION_LIMIT: 1_000})
    stream_id = client.ask()
    (request,) = client.edge.at_origin
    request.handler.informational(Response(103, [(b"link", b"l" * 1_000)]))
    request.answer(b"content", trailers=[(b"x-sum", b"1" * 1_000)])
    got = answer(client, stream_id)
    assert [section[0] for section in got.sections] == [(b":status", b"200")]
    assert got.content == b"content"
    assert stream_id in client.connection.ended


def test_sections_within_the_limit_pass() -> None:
    client = Client(**{SECTION_LIMIT: 1_000})
    stream_id = client.ask()
    (request,) = client.edge.at_origin
    request.handler.informational(Response(103, [(b"link", b"l" * 500)]))
    request.answer(b"content", trailers=[(b"x-sum", b"1" * 500)])
    assert len(answer(client, stream_id).sections) == 3


# --- malformed requests ---------------------------------------------------------------------------

WITH_LENGTH = [*POST, (b"content-length", b"3")]
AFTER_THE_HEAD = {
    "content short of its length": head(WITH_LENGTH) + frame(0, b"ab"),
    "content beyond its length": head(WITH_LENGTH) + frame(0, b"abcd"),
    "a pseudo-header field in trailers": head(POST) + frame(0, b"x") + head([(b":path", b"/")]),
    "an upper-case trailer": head(POST) + frame(0, b"x") + head([(b"X-Sum", b"1")]),
    "a trailer without a name": head(POST) + frame(1, b"\0\0\x20\x01v"),
}


@pytest.mark.parametrize("data", AFTER_THE_HEAD.values(), ids=AFTER_THE_HEAD.keys())
def test_a_request_that_is_malformed_after_its_head_is_reset_as_such(data: bytes) -> None:
    """RFC 9114 section 4.1.2: a stream error of type H3_MESSAGE_ERROR."""
    client = Client()
    stream_id = client.ask(data)
    assert client.connection.resets == {stream_id: H3ErrorCode.MESSAGE_ERROR}
    assert client.connection.stops == {stream_id: H3ErrorCode.MESSAGE_ERROR}
    assert client.edge.at_origin[0].aborted
    assert client.closed is None


def give_up(client: Client, stream_id: int, by: str) -> None:
    if by == "reset":
        client._tell(events.StreamReset(error_code=H3ErrorCode.NO_ERROR, stream_id=stream_id))
    else:
        client.send(stream_id, head([(b"x-sum", b"1")]) if by == "trailers" else b"", end=True)


@pytest.mark.parametrize("by", ["end", "trailers", "reset"])
def test_a_client_that_gives_up_its_upload_gets_the_response_that_has_begun(by: str) -> None:
    client = Client()
    stream_id = client.ask(head(WITH_LENGTH) + frame(0, b"ab"), end=False)
    (request,) = client.edge.at_origin
    request.handler.informational(Response(103))
    request.handler.response(Response(403))
    give_up(client, stream_id, by)
    assert not request.ended, "to the origin, the request stays incomplete"
    assert not request.aborted
    request.handler.data(b"no, thanks")
    request.handler.end(())
    got = answer(client, stream_id)
    assert got.content == b"no, thanks"
    assert stream_id in client.connection.ended
    assert not client.connection.resets
    assert not client.connection.stops
    client.session.after_transmit()
    assert not client.session.streams
    assert request.handler.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("by", ["end", "trailers", "reset"])
def test_a_client_may_give_up_its_uploads_once_answered_as_often_as_it_likes(by: str) -> None:
    client = Client()
    for number in range(3_000):
        stream_id = client.ask(head(WITH_LENGTH) + frame(0, b"ab"), end=False)
        request = client.edge.at_origin.pop()
        if number % 2:
            request.handler.response(Response(403))
            give_up(client, stream_id, by)
            request.handler.end(())
        else:
            request.answer()
            assert client.connection.stops == {stream_id: H3ErrorCode.NO_ERROR}
            give_up(client, stream_id, by)
        assert not client.connection.resets
        client.forget()
    assert client.closed is None
    assert not client.told_to_leave


LARGE = [(b"x-%d" % index, b"a" * 4_000) for index in range(20)]
REFUSED_HEADS = {
    "malformed": (400, [(b":authority", b"user@localhost")]),
    "extended CONNECT": (400, [(b":protocol", b"websocket")]),
    "too many fields": (431, [(b"x-%d" % index, b"y") for index in range(140)]),
    "too large": (431, LARGE),
}


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(("status", "fields"), REFUSED_HEADS.values(), ids=REFUSED_HEADS.keys())
def test_a_head_that_is_refused_is_answered(
    status: int, fields: list[Field], method: bytes
) -> None:
    client = Client()
    names = {name for name, _ in fields}
    base = [field for field in GET[1:] if field[0] not in names]
    stream_id = client.ask(head([(b":method", method), *base, *fields]), end=False)
    got = answer(client, stream_id)
    assert got.status == status
    assert bool(got.content) is (method != b"HEAD")
    assert stream_id in client.connection.ended
    assert client.connection.stops == {stream_id: H3ErrorCode.MESSAGE_ERROR}


def test_a_request_of_unknown_method_is_answered_without_content() -> None:
    client = Client()
    stream_id = client.ask(b"\x01" + encode_varint(1 << 20), end=False)
    got = answer(client, stream_id)
    assert got.status == 431
    assert (b"content-length", b"0") in got.sections[0]
    assert not got.content


def test_protocol_that_was_not_announced_is_malformed() -> None:
    """RFC 9220 section 3."""
    client = Client()
    stream_id = client.ask(head([(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"x")]))
    assert answer(client, stream_id).status == 400
    assert str(client.edge.rejections[0]) == ":protocol was not announced"


# --- uploads that nobody reads any more -----------------------------------------------------------


def test_an_upload_is_stopped_when_its_response_is_unwanted() -> None:
    client = Client()
    stream_id = client.ask(head(POST) + frame(0, b"x" * 10), end=False)
    client._tell(events.StopSendingReceived(error_code=0x10C, stream_id=stream_id))
    assert client.connection.stops == {stream_id: H3ErrorCode.REQUEST_CANCELLED}
    (request,) = client.edge.at_origin
    assert request.aborted
    client.send(stream_id, frame(0, b"x" * 10))
    assert request.content == b"x" * 10


def test_a_request_whose_response_is_unwanted_before_its_head_is_not_begun() -> None:
    client = Client()
    stream_id = client.open()
    client.connection.ended.add(stream_id)  # the transport's answer to STOP_SENDING
    client._tell(events.StopSendingReceived(error_code=0x10C, stream_id=stream_id))
    client.send(stream_id, head(POST), end=False)
    assert client.connection.stops == {stream_id: H3ErrorCode.REQUEST_CANCELLED}
    assert not client.edge.at_origin


def test_a_request_reset_before_its_head_gives_its_stream_back() -> None:
    client = Client()
    early, answered = client.open(), client.ask(head(GET[:1]), end=False)
    client.send(early, b"\x01", end=False)
    for stream_id in (early, answered):
        client._tell(events.StreamReset(error_code=0x10C, stream_id=stream_id))
    assert client.connection.resets == {early: H3ErrorCode.REQUEST_CANCELLED}
    assert answer(client, answered).status == 400


# --- the end --------------------------------------------------------------------------------------


def test_cancelled_requests_reserve_no_memory_for_their_responses() -> None:
    client = Client()
    streams = [client.ask() for _ in range(40)]
    assert client.session.memory.account.held >= 30 * SEND_BUFFER_HIGH
    for stream_id in streams:
        client.cancel(stream_id)
    assert client.session.memory.account.held == 0


def test_goaway_never_names_a_higher_stream_than_before() -> None:
    """RFC 9114 section 5.2: a shutdown after a client was told to leave."""
    client = Client()
    client.ask()
    client.session.on_exhausted("a reason")
    sent = client.connection.control
    client.session.announce_drain()
    client.session.drain()
    goaway = frame(FrameType.GOAWAY, b"\x04")
    assert sent.endswith(goaway)
    assert client.connection.control in (sent, sent + goaway)


@pytest.mark.parametrize("heard", [True, False])
def test_a_client_that_may_not_have_heard_goaway_is_waited_for(heard: bool) -> None:
    """It may be behind a NAT that has changed its port: only what it sends next tells where."""
    client = Client()
    client.connection.streams.own_streams_delivered = False
    client.session.drain(patience=10.0)
    assert client.closed is None
    client.edge.clock += 5.0
    client.session.close_if_drained()
    assert client.closed is None
    if heard:
        client.connection.streams.own_streams_delivered = True
    else:
        client.edge.clock += 5.1
    client.session.close_if_drained()
    assert client.closed == (H3ErrorCode.NO_ERROR, "shutting down")


def test_a_shutdown_waits_for_nobody_to_hear_of_it() -> None:
    client = Client()
    client.connection.streams.own_streams_delivered = False
    client.session.drain()
    assert client.closed == (H3ErrorCode.NO_ERROR, "shutting down")
