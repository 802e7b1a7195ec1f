"""HTTP requests to applications."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from quicedge.config.limits import WSGI_THREADS
from quicedge.http.errors import OriginFailure
from quicedge.shares import Client
from tests.support.asgi import TIMEOUT, Answer, ask, request, serving
from tests.support.origins import eventually


def responder(*messages: dict[str, Any]) -> Any:
    """An application that sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")]}
BODY = {"type": "http.response.body", "body": b"hello"}


def more(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def answer_of(*messages: dict[str, Any], **head: Any) -> Answer:
    async with serving(responder(*messages)) as upstream:
        answer = ask(upstream, request(**head))
        await answer.finished()
        return answer


async def test_scope_describes_request_client_and_transport() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        assert dict(scope["extensions"]["quicedge.transport"]) == {"smoothed_rtt": 0.02}
        await send(START)
        await send(BODY)

    async with serving(app) as upstream:
        answer = ask(upstream, request("/a%20%C3%BC?q=1%20", ("cookie", "c=1"), length=0))
        await answer.finished()
    (scope,) = scopes
    assert scope["path"] == "/a ü"
    assert scope["raw_path"] == b"/a%20%C3%BC"
    assert scope["query_string"] == b"q=1%20"
    assert scope["headers"] == [
        (b"host", b"app.example"), (b"cookie", b"c=1"), (b"content-length", b"0"),
    ]  # fmt: skip
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("GET", "https", "3")
    assert (scope["client"], scope["server"]) == (("192.0.2.1", 4000), ("198.51.100.1", 443))


@pytest.mark.parametrize(
    ("target", "path"),
    [("/api/x", "/api/x"), ("/x", "/api/x"), ("/apix", "/api/apix"), ("/api", "/api")],
)
async def test_the_path_of_a_scope_includes_its_root_once(target: str, path: str) -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["root_path"] == "/api"
        seen.append((scope["path"], scope["raw_path"]))
        await send(START)
        await send(BODY)

    async with serving(app, root_path="/api") as upstream:
        await ask(upstream, request(target)).finished()
    assert seen == [(path, path.encode())]


async def test_response_with_content_in_pieces() -> None:
    answer = await answer_of(START, more(b"hel"), more(b""), {**BODY, "body": bytearray(b"lo")})
    assert (answer.head.status, answer.body, answer.error) == (200, b"hello", None)
    assert answer.head.fields == [(b"x-a", b"1")]


async def test_trailers_follow_the_content() -> None:
    answer = await answer_of(
        {**START, "trailers": True},
        BODY,
        {"type": "http.response.trailers", "headers": [(b"A", b"1")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"b", b"2")]},
    )
    assert (answer.body, answer.trailers) == (b"hello", [(b"a", b"1"), (b"b", b"2")])


async def test_early_hints_come_before_the_response() -> None:
    links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
    answer = await answer_of({"type": "http.response.early_hint", "links": links}, START, BODY)
    (hint,) = answer.interim
    assert hint.status == 103
    assert hint.fields == [(b"link", link) for link in links]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
async def test_content_of_responses_without_any_is_dropped(method: str, status: int) -> None:
    answer = await answer_of({**START, "status": status}, BODY, method=method)
    assert (answer.head.status, answer.body, answer.error) == (status, b"", None)


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (BODY,),
        ({"type": "http.response.push", "path": "/x", "headers": []},),
        ({**START, "status": 101},),
        ({**START, "status": 1000},),
        ({**START, "headers": [(b"a b", b"1")]},),
        ({**START, "headers": [(b"a", b"1\r\nb: 2")]},),
        ({**START, "headers": [("a", "1")]},),
        ({**START, "headers": [(b"content-length", b"1"), (b"content-length", b"2")]},),
    ],
)
async def test_responses_that_cannot_begin_are_500(messages: tuple[dict[str, Any], ...]) -> None:
    answer = await answer_of(*messages)
    assert answer.error is not None
    assert (answer.error.kind, answer.head.status) == (OriginFailure.APPLICATION, 0)
    assert answer.error.kind.status == 500


LENGTH = {**START, "headers": [(b"content-length", b"5")]}


@pytest.mark.parametrize(
    "messages",
    [
        (START, more(b"x")),
        (START, START),
        (LENGTH, {**BODY, "body": b"four"}),
        (LENGTH, {**BODY, "body": b"sixsix"}),
        (LENGTH, more(b"three"), more(b"x")),
        ({**START, "trailers": True}, BODY),
        ({**START, "trailers": True}, BODY, BODY),
        (START, {"type": "http.response.trailers", "headers": []}),
        (START, {**BODY, "body": 10}),
        (START, {**BODY, "body": "text"}),
    ],
)
async def test_a_response_that_ends_early_is_reset(messages: tuple[dict[str, Any], ...]) -> None:
    answer = await answer_of(*messages)
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.RESET


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, asyncio.CancelledError]
)
async def test_an_exception_costs_one_request(error: type[BaseException]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise error
        await send(START)
        await send(BODY)

    async with serving(app) as upstream:
        bad, good = ask(upstream, request("/bad")), ask(upstream)
        await bad.finished()
        await good.finished()
    assert bad.error is not None
    assert bad.error.kind is OriginFailure.APPLICATION
    assert good.body == b"hello"


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
async def test_an_exit_within_a_response_resets_it(error: type[BaseException]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(more(b"x"))
        raise error

    async with serving(app) as upstream:
        answer = ask(upstream)
        await answer.finished()
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.RESET


async def test_what_is_sent_after_the_response_is_an_error_of_the_application() -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        try:
            await send(BODY)
        except RuntimeError as error:
            errors.append(str(error))

    async with serving(app) as upstream:
        answer = ask(upstream)
        await answer.finished()
        await eventually(lambda: not upstream.running)
    assert answer.body == b"hello"
    assert errors == ["'http.response.body' after the response is complete"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        await send({**BODY, "body": message["body"], "more_body": message["more_body"]})
        if not message["more_body"]:
            return


async def test_request_content_arrives_in_order_and_ends() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, request(method="POST", ended=False))
        for piece in (b"one ", b"two ", b"three"):
            answer.stream.write(piece)
        await answer.until(lambda a: a.body == b"one two three")
        answer.stream.write(b"!")
        answer.stream.end()
        await answer.finished()
    assert answer.body == b"one two three!"


async def test_an_application_that_does_not_read_pauses_the_request() -> None:
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reading.wait()
        await echo(scope, receive, send)

    async with serving(app) as upstream:
        answer = ask(upstream, request(method="POST", ended=False))
        sent = 0
        while not answer.request_paused:
            answer.stream.write(bytes(50_000))
            sent += 50_000
        assert 200_000 < sent < 400_000
        reading.set()
        await answer.until(lambda a: not a.request_paused)
        answer.stream.end()
        await answer.finished()
    assert len(answer.body) == sent


async def test_send_waits_for_a_client_that_does_not_keep_up() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(5):
            await send(more(b"x" * 1000))
            sent += 1
        await send(BODY)

    async with serving(app) as upstream:
        answer = ask(upstream, pausing=True)
        for expected in range(1, 6):
            await answer.until(lambda a, n=expected: len(a.body) == 1000 * n)
            await asyncio.sleep(0)
            assert sent == expected
            answer.stream.resume()
        await answer.finished()
    assert answer.body.endswith(b"xhello")


async def test_a_client_that_leaves_is_told_to_both_halves() -> None:
    told: list[str] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        message = await receive()
        told.append(message["type"])
        try:
            await send(more(b"x"))
        except OSError as error:
            told.append(type(error).__name__)
        ended.set()

    async with serving(app) as upstream:
        answer = ask(upstream, request(method="POST", ended=False))
        await answer.until(lambda a: a.head.status)
        answer.stream.abort()
        await asyncio.wait_for(ended.wait(), TIMEOUT)
    assert told == ["http.disconnect", "ClientDisconnected"]
    assert not answer.done.is_set()


async def test_an_endless_response_ends_with_its_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send(more(b"tick"))
            await asyncio.sleep(0)

    async with serving(app) as upstream:
        answer = ask(upstream)
        await answer.until(lambda a: len(a.body) > 100)
        answer.stream.abort()
        await eventually(lambda: not upstream.running)


async def test_disconnect_is_received_after_the_response() -> None:
    """Starlette's StreamingResponse listens for it beside sending."""
    last: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        listening = asyncio.create_task(receive())
        await send(START)
        await send(BODY)
        last.append((await listening)["type"])

    async with serving(app) as upstream:
        await ask(upstream).finished()
    assert last == ["http.disconnect"]


async def test_work_after_the_response_goes_on() -> None:
    done = asyncio.Event()
    released = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        await released.wait()
        done.set()

    async with serving(app) as upstream:
        answer = ask(upstream)
        await answer.finished()
        assert upstream.running
        answer.stream.abort()  # the client has closed its connection
        released.set()
        await asyncio.wait_for(done.wait(), TIMEOUT)


async def test_expect_is_answered_when_the_application_reads() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, request("/", ("expect", "100-continue"), method="POST", ended=False))
        await answer.until(lambda a: a.head.status)
        assert not answer.interim  # it responds before it reads, so nothing must be promised
        answer.stream.end()
        await answer.finished()

    async def reader(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(BODY)

    async with serving(reader) as upstream:
        answer = ask(upstream, request("/", ("expect", "100-continue"), method="POST", ended=False))
        await answer.until(lambda a: a.interim)
        assert answer.interim[0].status == 100
        answer.stream.write(b"x")
        await answer.finished()


async def test_an_application_that_does_not_respond_times_out() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with serving(app, first_byte_timeout=0.01) as upstream:
        answer = ask(upstream)
        await answer.finished()
        await eventually(lambda: not upstream.running)
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.FIRST_BYTE_TIMEOUT


async def test_calls_are_limited_and_shared_fairly() -> None:
    release = asyncio.Event()
    running = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running
        running += 1
        await release.wait()
        await send(START)
        await send(BODY)

    async with serving(app, max_requests=4) as upstream:
        greedy, modest = Client(b"\x0a\0\0\1", b"\x0a\0\0"), Client(b"\x0b\0\0\1", b"\x0b\0\0")
        answers = []
        for client in [greedy] * 10 + [modest]:
            answer = Answer()
            answer.stream = upstream.open(request(), answer, client, None)
            answers.append(answer)
        async with asyncio.timeout(TIMEOUT):
            while running < 4:
                await asyncio.sleep(0)
        assert upstream.places.held == 4
        assert upstream.is_contended
        release.set()
        for answer in answers:
            await answer.finished()
            assert answer.body == b"hello"
        async with asyncio.timeout(TIMEOUT):
            while upstream.places.held:
                await asyncio.sleep(0)


async def test_a_burst_for_a_wsgi_application_waits_for_its_threads() -> None:
    together = threading.Barrier(WSGI_THREADS, timeout=TIMEOUT)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        together.wait()  # for as many calls as there are threads
        start_response("200 OK", [])
        return [b"hello"]

    async with serving(app, wsgi=True) as upstream:
        answers = [ask(upstream) for _ in range(3 * WSGI_THREADS)]
        for answer in answers:
            await answer.finished()
            assert (answer.head.status, answer.body) == (200, b"hello")


async def test_a_request_that_waits_in_vain_is_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with serving(app, max_requests=1) as upstream:
        upstream.queue_timeout = 0.01
        ask(upstream)
        waiting = ask(upstream)
        await waiting.finished()
        assert waiting.error is not None
        assert waiting.error.kind is OriginFailure.OVERLOADED


async def test_a_request_that_is_cancelled_while_it_waits_never_runs() -> None:
    paths: list[str] = []
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await release.wait()
        await send(START)
        await send(BODY)

    async with serving(app, max_requests=1) as upstream:
        first = ask(upstream, request("/first"))
        cancelled = ask(upstream, request("/cancelled"))
        last = ask(upstream, request("/last"))
        async with asyncio.timeout(TIMEOUT):
            while not paths:
                await asyncio.sleep(0)
        cancelled.stream.abort()
        release.set()
        await first.finished()
        await last.finished()
    assert paths == ["/first", "/last"]


async def test_requests_have_copies_of_the_state_of_the_lifespan() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = "shared"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(dict(scope["state"]))
        scope["state"]["own"] = True
        await send(START)
        await send(BODY)

    async with serving(app, lifespan=True) as upstream:
        for _ in range(2):
            await ask(upstream).finished()
    assert seen == [{"pool": "shared"}] * 2


async def test_other_tunnels_than_websockets_are_refused() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, request(method="CONNECT", ended=False, protocol=b"connect-udp"))
        await answer.finished()
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.NO_TUNNEL
