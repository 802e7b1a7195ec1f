"""What the edge does to messages that cross it."""

from __future__ import annotations

import pytest

from quicedge.http.message import Request, Response
from quicedge.http.priority import Priority, parse_priority
from quicedge.http.semantics import (
    EdgeContext,
    request_to_origin,
    response_has_body,
    response_to_client,
)

CONTEXT = EdgeContext(client_host="192.0.2.1", alt_svc=b'h3=":443"; ma=60')


def request(*fields: tuple[bytes, bytes]) -> Request:
    return Request(b"GET", b"https", b"example.com", b"/", list(fields))


def test_only_the_edge_says_who_asked() -> None:
    forged = request(
        (b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"http"), (b"forwarded", b"for=x"),
        (b"x-forwarded-host", b"evil"), (b"early-data", b"1"), (b"accept", b"*/*"),
    )  # fmt: skip
    fields = request_to_origin(forged, CONTEXT).fields
    assert (b"accept", b"*/*") in fields
    assert [v for n, v in fields if n == b"x-forwarded-for"] == [b"192.0.2.1"]
    assert [v for n, v in fields if n == b"x-forwarded-proto"] == [b"https"]
    assert [v for n, v in fields if n == b"x-forwarded-host"] == [b"example.com"]
    assert [v for n, v in fields if n == b"forwarded"] == [
        b'for=192.0.2.1;host="example.com";proto=https'
    ]
    assert not any(n == b"early-data" for n, _ in fields)


def test_an_ipv6_client_is_quoted_in_forwarded() -> None:
    fields = request_to_origin(request(), EdgeContext(client_host="2001:db8::1")).fields
    assert dict(fields)[b"forwarded"].startswith(b'for="[2001:db8::1]"')


def test_via_is_appended() -> None:
    fields = request_to_origin(request((b"via", b"1.1 a")), CONTEXT).fields
    assert dict(fields)[b"via"] == b"1.1 a, 3 quicedge"
    answer = response_to_client(Response(200, [(b"via", b"1.1 b")]), CONTEXT)
    assert dict(answer.fields)[b"via"] == b"1.1 b, 1.1 quicedge"


def test_te_trailers_is_passed_on() -> None:
    assert (b"te", b"trailers") in request_to_origin(request((b"te", b"trailers")), CONTEXT).fields


def test_hop_by_hop_fields_stay_with_their_hop() -> None:
    answer = response_to_client(
        Response(200, [(b"connection", b"close, X-Private"), (b"x-private", b"1"),
                       (b"keep-alive", b"1"), (b"transfer-encoding", b"chunked"), (b"x", b"y")]),
        CONTEXT,
    )  # fmt: skip
    assert {name for name, _ in answer.fields} == {b"x", b"via", b"alt-svc"}


def test_alt_svc_is_ours_or_the_origins() -> None:
    origin = Response(200, [(b"alt-svc", b"clear")])
    assert (b"alt-svc", CONTEXT.alt_svc) in response_to_client(origin, CONTEXT).fields
    silent = EdgeContext(client_host="x")
    assert (b"alt-svc", b"clear") in response_to_client(origin, silent).fields


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [(b"GET", 200, True), (b"HEAD", 200, False), (b"GET", 204, False), (b"GET", 304, False),
     (b"POST", 103, False), (b"GET", 500, True)],
)  # fmt: skip
def test_which_responses_have_content(method: bytes, status: int, has_body: bool) -> None:
    assert response_has_body(method, status) is has_body


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", Priority(3, False)),
        (b"u=0", Priority(0, False)),
        (b"u=5, i", Priority(5, True)),
        (b"i=?0", Priority(3, False)),
        (b"i=?1", Priority(3, True)),
        (b"u=9", Priority(3, False)),
        (b"u=1.5", Priority(3, False)),
        (b"u=2;x=1, foo=bar", Priority(2, False)),
        (b"\xff\xfe", Priority(3, False)),
    ],
)
def test_priorities(value: bytes, expected: Priority) -> None:
    assert parse_priority(value) == expected
