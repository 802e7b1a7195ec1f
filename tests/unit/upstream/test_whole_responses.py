"""A response that arrives in one read is passed on in one call; any other in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.retry import Retry
from tests.support.origins import Recorder, origin, request, says, send, upstream
from tests.unit.upstream.test_parts import _Owner, _Transport

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"content-length: 5\r\n\r\nhello"


class Calls:
    """A `connection.Receiver` that records the calls to it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self._error = error

    def informational(self, response: Response) -> None:
        self.calls.append(("informational", response.status))

    def response(self, response: Response) -> None:
        self.calls.append(("response", response.status))
        if self._error is not None:
            raise self._error

    def data(self, data: bytes) -> None:
        self.calls.append(("data", data))

    def end_of_response(self, trailers: Sequence[Field]) -> None:
        self.calls.append(("end", *trailers))

    def whole(self, response: Response, data: bytes) -> None:
        self.calls.append(("whole", response.status, data))

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None:
        self.calls.append(("failed", error.kind))


async def receive(
    *pieces: bytes, method: str = "GET", body: bool = False
) -> list[tuple[object, ...]]:
    """What a connection makes of an answer that comes in these reads."""
    owner, receiver = _Owner(), Calls()
    connection = H1Connection(owner, UpstreamConfig(servers=[]), asyncio.get_running_loop())
    connection.connection_made(_Transport())
    connection.start(request(method, body=body), receiver)  # type: ignore[arg-type]
    for piece in pieces:
        connection.data_received(piece)
    await asyncio.sleep(0)
    return receiver.calls


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"hello"),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
    ids=["with a length", "empty", "of one chunk"],
)
async def test_a_response_in_one_read_is_one_call(answer: bytes, body: bytes) -> None:
    assert await receive(answer) == [("whole", 200, body)]


async def test_a_response_to_head_is_one_call_without_content() -> None:
    answer = HEAD + b"content-length: 5\r\n\r\n"
    assert await receive(answer, method="HEAD") == [("whole", 200, b"")]


async def test_an_interim_response_in_the_same_read_comes_first() -> None:
    calls = await receive(b"HTTP/1.1 103 Hint\r\nlink: </a>\r\n\r\n" + OK)
    assert calls == [("informational", 103), ("whole", 200, b"hello")]


async def test_a_head_is_not_held_back_for_content_that_comes_later() -> None:
    assert await receive(OK[:-5]) == [("response", 200)]
    assert await receive(OK[:-3]) == [("response", 200), ("data", b"he")]
    assert await receive(OK[:-5], b"hello") == [("response", 200), ("data", b"hello"), ("end",)]


async def test_a_response_of_several_chunks_or_with_trailers_comes_in_pieces() -> None:
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    chunks = await receive(head + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    assert chunks == [("response", 200), ("data", b"he"), ("data", b"llo"), ("end",)]
    trailers = await receive(head + b"5\r\nhello\r\n0\r\na: b\r\n\r\n")
    assert trailers == [("response", 200), ("data", b"hello"), ("end", (b"a", b"b"))]


async def test_a_response_before_the_end_of_the_request_comes_in_pieces() -> None:
    calls = await receive(OK, method="POST", body=True)
    assert calls == [("response", 200), ("data", b"hello"), ("end",)]


async def test_what_came_before_a_violation_in_the_same_read_is_passed_on() -> None:
    answer = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n"
    assert await receive(answer) == [
        ("response", 200), ("data", b"hello"), ("failed", OriginFailure.PROTOCOL),
    ]  # fmt: skip


class Refusing(Recorder):
    """A handler with an error of its own."""

    def response(self, response: Response) -> None:
        raise RuntimeError("a fault of the handler")


async def test_an_error_of_the_handler_fails_its_request_and_no_other() -> None:
    loop = asyncio.get_running_loop()
    reported = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    async with origin(says(OK)) as server, upstream(server) as group:
        failing = Refusing()
        group.open(request(), failing, None)
        await failing.over()
        assert failing.events[-1] == "failed"
        assert failing.kind == "reset"
        assert [str(error) for error in reported] == ["a fault of the handler"]
        _, other = send(group, request())
        await other.over()
        assert other.body == b"hello"
