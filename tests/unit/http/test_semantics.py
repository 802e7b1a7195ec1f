"""Transformation of forwarded messages."""

from __future__ import annotations

import pytest

from quicedge.http.message import Request, Response
from quicedge.http.priority import Priority, parse_priority
from quicedge.http.semantics import (
    EdgeContext,
    interim_to_client,
    request_to_origin,
    response_has_body,
    response_to_client,
)

DATE = b"Thu, 26 Nov 2026 18:00:00 GMT"
LENGTH = b"content-length"
CONTEXT = EdgeContext(client_host="192.0.2.1")


def request(*fields: tuple[bytes, bytes]) -> Request:
    return Request(b"GET", b"https", b"example.com", b"/", list(fields))


def values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


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


@pytest.mark.parametrize(
    ("received", "sent"),
    [
        ([], b"3 quicedge"),
        ([b"1.1 a"], b"1.1 a, 3 quicedge"),
        ([b"1.1 one", b"2 two, 1.0 three"], b"1.1 one, 2 two, 1.0 three, 3 quicedge"),
    ],
)
def test_via_keeps_every_hop_in_order_and_ends_with_ours(
    received: list[bytes], sent: bytes
) -> None:
    lines = [(b"via", value) for value in received]
    assert values(request_to_origin(request(*lines), CONTEXT).fields, b"via") == [sent]
    answer = response_to_client(Response(200, lines, b"3"), DATE)
    assert b", ".join(values(answer.fields, b"via")) == sent


@pytest.mark.parametrize("version", [b"1.0", b"1.1", b"2"])
def test_via_names_the_version_that_was_received(version: bytes) -> None:
    answer = response_to_client(Response(200, [], version), DATE)
    assert values(answer.fields, b"via") == [version + b" quicedge"]
    context = EdgeContext(client_host="192.0.2.1", version=version)
    asked = request_to_origin(request(), context)
    assert values(asked.fields, b"via") == [version + b" quicedge"]


def test_a_response_of_the_edge_has_passed_nobody() -> None:
    assert not values(response_to_client(Response(404), DATE).fields, b"via")


def test_date_is_added_where_the_origin_sent_none_and_kept_where_it_did() -> None:
    added = response_to_client(Response(200, [], b"1.1"), DATE)
    assert values(added.fields, b"date") == [DATE]
    theirs = b"Sun, 06 Nov 1994 08:49:37 GMT"
    kept = response_to_client(Response(200, [(b"date", theirs)], b"1.1"), DATE)
    assert values(kept.fields, b"date") == [theirs]


@pytest.mark.parametrize(
    ("value", "sent"),
    [(b"5", b"4"), (b"1", b"0"), (b"256", b"254"), (b"9" * 4000, b"254"), (b"0" * 40 + b"7", b"6")],
)
def test_options_goes_one_forward_less(value: bytes, sent: bytes) -> None:
    asked = Request(b"OPTIONS", b"https", b"a", b"*", [(b"max-forwards", value)])
    assert values(request_to_origin(asked, CONTEXT).fields, b"max-forwards") == [sent]


def test_max_forwards_of_other_methods_is_left_alone() -> None:
    fields = request_to_origin(request((b"max-forwards", b"x")), CONTEXT).fields
    assert values(fields, b"max-forwards") == [b"x"]


def test_content_length_never_comes_with_204_or_an_interim_response() -> None:
    length = [(b"content-length", b"0"), (b"x", b"y")]
    assert not values(response_to_client(Response(204, length), DATE).fields, LENGTH)
    assert values(response_to_client(Response(304, length), DATE).fields, LENGTH)
    assert interim_to_client(Response(103, length)).fields == [(b"x", b"y")]


def test_trailer_says_at_the_other_end_what_is_to_come() -> None:
    announced = (b"trailer", b"x-checksum")
    assert announced in request_to_origin(request(announced), CONTEXT).fields
    assert announced in response_to_client(Response(200, [announced]), DATE).fields


def test_te_trailers_is_passed_on() -> None:
    assert (b"te", b"trailers") in request_to_origin(request((b"te", b"trailers")), CONTEXT).fields


def test_hop_by_hop_fields_stay_with_their_hop() -> None:
    answer = response_to_client(
        Response(200, [(b"connection", b"close, X-Private"), (b"x-private", b"1"),
                       (b"keep-alive", b"1"), (b"transfer-encoding", b"chunked"), (b"x", b"y")]),
        DATE,
    )  # fmt: skip
    assert {name for name, _ in answer.fields} == {b"x", b"date"}


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
