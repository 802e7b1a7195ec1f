"""What filters written in Python can do, and what they cannot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.filters import BodyTransform, Context, Filter, Headers, Request, Response
from quicedge.http.grammar import AUTHORITY, FIELD_NAME, FIELD_VALUE, PATH
from quicedge.testing import TestClient, exchange


class Acting(Filter):
    """Does what a test says."""

    def __init__(
        self, on_request: Any = None, on_response: Any = None, on_done: Any = None
    ) -> None:
        self._request, self._response, self._done = on_request, on_response, on_done
        self.closed = 0

    def on_request(self, request: Request, context: Context) -> Any:
        return self._request(request, context) if self._request else None

    def on_response(self, response: Response, context: Context) -> Any:
        return self._response(response, context) if self._response else None

    def on_done(self, context: Context) -> None:
        if self._done:
            self._done(context)

    def close(self) -> None:
        self.closed += 1


async def test_a_filter_without_methods_changes_nothing() -> None:
    head = Request("POST", "/a?b", {"x-a": "1"}, authority="example.com")
    result = await exchange(Filter(), head, b"content")
    assert result.forwarded is not None
    assert (result.forwarded.method, result.forwarded.target) == ("POST", "/a?b")
    assert result.forwarded.authority == "example.com"
    assert (result.forwarded.headers["x-a"], result.forwarded_body) == ("1", b"content")
    assert (result.response.status, result.response.body) == (200, b"hello")
    assert result.outcome == "complete"


async def test_requests_pass_in_order_and_responses_in_reverse() -> None:
    def named(name: str) -> Filter:
        return Acting(
            lambda request, context: request.headers.add("x-way", name),
            lambda response, context: response.headers.add("x-way", name),
        )

    result = await exchange([named("first"), named("second")])
    assert result.forwarded is not None
    assert result.forwarded.headers["x-way"] == "first, second"
    assert result.response.headers["x-way"] == "second, first"


async def test_target_and_authority_can_be_changed() -> None:
    def change(request: Request, context: Context) -> None:
        request.target = "/new?q=1"
        request.authority = "internal.example:8443"

    result = await exchange(Acting(change))
    assert result.forwarded is not None
    assert result.forwarded.target == "/new?q=1"
    assert (result.forwarded.path, result.forwarded.query) == ("/new", "q=1")
    assert result.forwarded.authority == "internal.example:8443"


async def test_a_filter_answers_and_outer_filters_see_its_answer() -> None:
    outer = Acting(on_response=lambda response, context: response.headers.add("x-outer", "1"))
    inner = Acting(lambda request, context: Response(418, {"x-a": "1"}, "tea"))
    result = await exchange([outer, inner])
    assert result.forwarded is None
    assert (result.response.status, result.response.body) == (418, b"tea")
    assert result.response.headers["x-outer"] == "1"
    assert result.response.headers["content-length"] == "3"


async def test_a_response_is_replaced_whole_or_in_its_content_alone() -> None:
    def other(response: Response, context: Context) -> Response:
        return Response(404, body="gone")

    replaced = await exchange(Acting(on_response=other))
    assert (replaced.response.status, replaced.response.body) == (404, b"gone")

    def content(response: Response, context: Context) -> None:
        assert response.body is None
        response.body = "other"

    changed = await exchange(Acting(on_response=content))
    assert (changed.response.status, changed.response.body) == (200, b"other")
    assert changed.response.headers["content-type"] == "text/plain"
    assert changed.response.headers["content-length"] == "5"


class Doubling(BodyTransform):
    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> bytes:
        return data + data

    def end(self) -> bytes:
        return b"."

    def close(self) -> None:
        self.closed = True


async def test_content_passes_transforms_in_both_directions() -> None:
    transforms = [Doubling(), Doubling()]
    both = Acting(
        lambda request, context: context.transform_request(transforms[0]),
        lambda response, context: context.transform_response(transforms[1]),
    )
    result = await exchange(both, Request("POST"), b"ab", piece_size=1)
    assert result.forwarded_body == b"aabb."
    assert result.response.body == b"hheelllloo."
    assert "content-length" not in result.response.headers
    assert all(transform.closed for transform in transforms)


async def test_coroutines_are_awaited_while_the_request_is_held() -> None:
    async def slowly(message: Any, context: Context) -> None:
        await asyncio.sleep(0)
        message.headers["x-slow"] = "1"

    result = await exchange(Acting(slowly, slowly), Request("POST"), b"x" * 5000)
    assert result.forwarded is not None
    assert result.forwarded.headers["x-slow"] == result.response.headers["x-slow"] == "1"
    assert result.forwarded_body == b"x" * 5000


async def test_a_coroutine_that_takes_too_long_costs_its_exchange() -> None:
    async def never(request: Request, context: Context) -> None:
        await asyncio.Event().wait()

    result = await exchange(Acting(never), timeout=0.01)
    assert (result.response.status, result.outcome) == (500, "filter_failed")
    assert "took longer than 0.01 seconds" in result.reason
    assert result.forwarded is None


def fail(*arguments: Any) -> None:
    raise LookupError("nothing there")


async def fail_later(*arguments: Any) -> None:
    await asyncio.sleep(0)
    fail()


@pytest.mark.parametrize(
    "broken",
    [
        Acting(fail),
        Acting(on_response=fail),
        Acting(fail_later),
        Acting(on_response=fail_later),
        Acting(lambda request, context: 5),
        Acting(on_response=lambda response, context: "text"),
        Acting(lambda request, context: request.headers.add("a b", "1")),
        Acting(lambda request, context: setattr(request, "method", "POST")),
        Acting(lambda request, context: Request("POST", "/")),
        Acting(lambda request, context: Response(200, {}, 10)),  # type: ignore[arg-type]
        Acting(on_response=lambda response, context: setattr(response, "body", 10)),
    ],
)
async def test_an_exception_costs_one_exchange(broken: Filter) -> None:
    result = await exchange(broken)
    assert (result.response.status, result.outcome) == (500, "filter_failed")
    assert result.reason.startswith("filters[0] (python): ")


@pytest.mark.parametrize("given", [10, "text", [1, 2], None])
async def test_a_transform_that_gives_no_bytes_breaks_off_the_content(given: Any) -> None:
    class Wrong(BodyTransform):
        def write(self, data: bytes) -> bytes:
            return given  # type: ignore[no-any-return]

    result = await exchange(
        Acting(on_response=lambda r, context: context.transform_response(Wrong()))
    )
    assert (result.response.body, result.outcome) == (b"", "filter_failed")
    assert "content must be bytes" in result.reason


async def test_a_transform_that_comes_too_late_is_an_error() -> None:
    errors: list[str] = []

    def late(head: Any, context: Context) -> None:
        try:
            context.transform_request(BodyTransform())
        except RuntimeError as error:
            errors.append(str(error))

    def later(context: Context) -> None:
        try:
            context.transform_response(BodyTransform())
        except RuntimeError as error:
            errors.append(str(error))

    await exchange(Acting(on_response=late, on_done=later))
    assert errors == [
        "the request has been forwarded: transform it in on_request",
        "the response has begun: transform it in on_response",
    ]


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_that_becomes_one_without_content_has_none(status: int) -> None:
    answering = Acting(lambda request, context: Response(status, {}, "content"))
    changing = Acting(on_response=lambda response, context: setattr(response, "status", status))
    for item in (answering, changing):
        result = await exchange(item)
        assert (result.response.status, result.response.body) == (status, b"")
        assert "content-length" not in result.response.headers


async def test_what_a_filter_sets_takes_the_place_of_what_origins_take_for_it() -> None:
    def name_user(request: Request, context: Context) -> None:
        request.headers["x-user"] = "ann"
        request.headers.pop("x-token", None)

    head = Request(headers={"x_user": "root", "X-User": "root", "x.token": "1", "x_other": "2"})
    result = await exchange(Acting(name_user), head)
    assert result.forwarded is not None
    lines = result.forwarded.headers.lines()
    assert sorted(lines) == [("x-user", "ann"), ("x_other", "2")]


async def test_an_exception_at_the_end_changes_nothing() -> None:
    result = await exchange(Acting(on_done=fail))
    assert (result.response.status, result.outcome) == (200, "complete")


async def test_the_end_is_told_once_with_what_became_of_the_exchange() -> None:
    told: list[Any] = []

    def begin(request: Request, context: Context) -> None:
        context.state["mine"] = 1
        assert (context.status, context.outcome) == (0, None)

    def done(context: Context) -> None:
        told.append((context.state, context.status, context.outcome, context.bytes_sent))
        assert context.seconds >= 0

    acting = Acting(begin, on_done=done)
    await exchange(acting)
    assert told == [({"mine": 1}, 200, "complete", 5)]
    assert acting.closed == 1


async def test_the_context_tells_of_the_client_and_its_transport() -> None:
    seen: list[Any] = []

    def look(request: Request, context: Context) -> None:
        client = context.client
        request.target = "/changed"
        seen.append((
            context.request.target, client.address, client.port, client.http_version,
            client.tls_version, client.server_name, client.transport, client.smoothed_rtt,
            client.loss_ratio, client.early_data,
        ))  # fmt: skip

    await exchange(Acting(look), client=TestClient(http_version=b"2"))
    assert seen == [
        ("/", "192.0.2.1", 50000, "2", "TLSv1.3", "localhost", "quic", 0.02, 0.01, False)
    ]


# --- what messages accept -------------------------------------------------------------------------


def test_fields_are_found_without_regard_to_case() -> None:
    headers = Headers([("X-A", "1"), ("set-cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert headers["x-a"] == headers["X-A"] == "1"
    assert headers["set-cookie"] == "a=1, b=2"
    assert headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert list(headers) == ["x-a", "set-cookie"]
    assert len(headers) == 2
    assert "X-a" in headers
    assert 5 not in headers
    headers["set-cookie"] = "c=3"
    assert headers.lines() == [("x-a", "1"), ("set-cookie", "c=3")]
    del headers["X-A"]
    assert headers.get("x-a") is None
    with pytest.raises(KeyError):
        del headers["x-a"]
    with pytest.raises(KeyError):
        headers["x-a"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", "1"), ("", "1"), (":path", "/"), ("x", "1\r\ny: 2"), ("x", " 1"), ("x", "\0"),
        ("x", "€"), ("Content-Length", "5"), ("transfer-encoding", "chunked"), ("host", "x"),
        ("connection", "close"), ("x\u00e9", "1"),
    ],
)  # fmt: skip
def test_fields_that_could_split_a_message_are_refused(name: str, value: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError):
        headers[name] = value
    with pytest.raises(ValueError):
        headers.add(name, value)
    assert not headers.lines()


@pytest.mark.parametrize("target", ["x", "", "/a b", "/\r\n", "/#", "/é", "/a/..%2fb", "/a/..;/b"])
def test_targets_that_servers_disagree_about_are_refused(target: str) -> None:
    request = Request()
    with pytest.raises(ValueError):
        request.target = target
    assert request.target == "/"


@pytest.mark.parametrize("authority", ["", "a b", "a/b", "user@host", "a\r\n", "ü"])
def test_authorities_that_are_no_hosts_are_refused(authority: str) -> None:
    with pytest.raises(ValueError):
        Request(authority=authority)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, "200", True])
def test_statuses_of_no_final_response_are_refused(status: Any) -> None:
    with pytest.raises(ValueError):
        Response(status)


def test_cookies_are_read_as_they_were_sent() -> None:
    request = Request(headers={"cookie": "a=1; b=x=y;c; a=2;  d="})
    assert request.cookies == {"a": "1", "b": "x=y", "d": ""}


@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_a_filter_sets_nothing_malformed_reaches_the_origin(
    name: str, value: str, target: str, authority: str
) -> None:
    request = Request()
    for change in (
        lambda: request.headers.add(name, value),
        lambda: setattr(request, "target", target),
        lambda: setattr(request, "authority", authority),
    ):
        try:
            change()
        except ValueError:
            continue
    for field, content in request.headers.to_fields():
        assert FIELD_NAME.fullmatch(field)
        assert FIELD_VALUE.fullmatch(content)
    assert PATH.fullmatch(request.target.encode()) or request.target == "*"
    assert AUTHORITY.fullmatch(request.authority.encode())
