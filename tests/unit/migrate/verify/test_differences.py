"""What counts as a difference between two edges, and what is noise."""

from __future__ import annotations

import gzip

import pytest

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.verify.differences import Comparison
from quicedge.migrate.verify.message import Headers, Outcome, Response, Sample, Seen
from quicedge.migrate.verify.noise import Noise

SAMPLE = Sample("GET", "https://a.example.com/x")
COMPARISON = Comparison(
    Noise({1001: "10.0.0.1:80", 1002: ":443"}, {2001: "10.0.0.1:80", 2002: ":443", 2003: ":80"}),
    {"10.0.0.1:80": "app", "10.0.0.2:80": "app"},
)


def found(original: Outcome, ours: Outcome, sample: Sample = SAMPLE) -> list[Effect]:
    return [one.effect for one in COMPARISON.differences(sample, original, ours)]


def answered(status: int = 200, headers: Headers | None = None, body: bytes = b"x") -> Outcome:
    return Outcome(Response(status, headers or [], body))


def forwarded(
    method: str = "GET", target: str = "/x", headers: Headers | None = None, body: bytes = b"",
    origin: str = "10.0.0.1:80",
) -> Outcome:  # fmt: skip
    seen = Seen(origin, method, target, headers or [("host", "a")], body)
    return Outcome(Response(200, [("via", "1.1 quicedge")]), [seen])


CLIENT, ORIGIN = Side.CLIENT, Side.ORIGIN


@pytest.mark.parametrize(
    ("original", "ours", "effect"),
    [
        (answered(200), answered(404), Effect(CLIENT, Aspect.STATUS, "200->404")),
        (
            answered(),
            Outcome(Response(0, failure="closed")),
            Effect(CLIENT, Aspect.STATUS, "200->0"),
        ),
        (answered(), answered(body=b"y"), Effect(CLIENT, Aspect.BODY)),
        (answered(headers=[("x-a", "1")]), answered(), Effect(CLIENT, Aspect.HEADER, "x-a")),
        (
            answered(headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")]),
            answered(headers=[("set-cookie", "a=1")]),
            Effect(CLIENT, Aspect.HEADER, "set-cookie"),
        ),
        (
            answered(301, [("location", "/a")]),
            answered(301, [("location", "/b")]),
            Effect(CLIENT, Aspect.HEADER, "location"),
        ),
        (forwarded(), forwarded(method="HEAD"), Effect(ORIGIN, Aspect.METHOD)),
        (forwarded(), forwarded(target="/y"), Effect(ORIGIN, Aspect.TARGET)),
        (
            forwarded(target="/a/b"),
            forwarded(target="//a%2Fb"),
            Effect(ORIGIN, Aspect.TARGET, "encoding"),
        ),
        (
            forwarded(target="/a/b?c=/../d"),
            forwarded(target="/a/./x/../b?c=/../d"),
            Effect(ORIGIN, Aspect.TARGET, "encoding"),
        ),
        (forwarded(), forwarded(headers=[("host", "b")]), Effect(ORIGIN, Aspect.HOST)),
        (forwarded(), forwarded(body=b"1"), Effect(ORIGIN, Aspect.BODY)),
        (forwarded(), forwarded(origin="10.0.0.9:80"), Effect(ORIGIN, Aspect.SERVER)),
        (
            forwarded(headers=[("host", "a"), ("x-real-ip", "1")]),
            forwarded(),
            Effect(ORIGIN, Aspect.HEADER, "x-real-ip"),
        ),
        (
            forwarded(headers=[("host", "a"), ("x-forwarded-for", "1")]),
            forwarded(headers=[("host", "a"), ("x-forwarded-for", "2")]),
            Effect(ORIGIN, Aspect.HEADER, "x-forwarded-for"),
        ),
    ],
)
def test_each_difference_is_found(original, ours, effect):
    assert found(original, ours) == [effect]


def test_a_request_that_reaches_no_origin_is_a_difference():
    assert Effect(ORIGIN, Aspect.REACHED) in found(forwarded(), answered(403))


def test_different_counts_of_refusals_are_a_difference():
    burst = Sample("GET", SAMPLE.url, burst=30)
    original = Outcome(Response(200), statuses={200: 20, 503: 10})
    for statuses in ({200: 20, 429: 10}, {200: 10, 503: 20}, {200: 30}):
        ours = Outcome(Response(200), statuses=statuses)
        assert found(original, ours, burst) == [Effect(CLIENT, Aspect.STATUS, "burst")]
    # Each of them is refused in another way.
    refused = Outcome(Response(400), statuses={400: 30})
    cut_off = Outcome(Response(0), statuses={0: 30})
    assert found(refused, cut_off, burst) == [Effect(CLIENT, Aspect.STATUS, "400->0")]
    nearly = Outcome(Response(200), statuses={200: 23, 503: 7})
    assert found(original, nearly, burst) == []


BUILT_IN = b"<html><hr><center>nginx/1.22.1</center></html>"


@pytest.mark.parametrize(
    ("original", "ours"),
    [
        # Framing, the time, the names of the edges.
        (
            answered(headers=[("server", "nginx"), ("date", "1"), ("connection", "close")]),
            answered(headers=[("via", "1.1 quicedge"), ("alt-svc", "h3"), ("date", "2")]),
        ),
        # The content, whatever its coding.
        (
            answered(headers=[("content-encoding", "gzip")], body=gzip.compress(b"x", 1)),
            answered(headers=[("content-encoding", "gzip")], body=gzip.compress(b"x", 9)),
        ),
        # A page of nginx's own, and one of quicedge's own.
        (
            answered(404, [("content-type", "text/html")], BUILT_IN),
            answered(404, [("content-type", "text/plain")], b"not found"),
        ),
        # Location absolute or relative, with the ports of stand-ins.
        (
            answered(302, [("location", "https://a.example.com:1002/y")], b""),
            answered(302, [("location", "/y")], b""),
        ),
        # Addresses of stand-ins.
        (
            forwarded(headers=[("host", "127.0.0.1:1001")]),
            forwarded(headers=[("host", "127.0.0.1:2001")]),
        ),
        # Another server of the same upstream.
        (forwarded(), forwarded(origin="10.0.0.2:80")),
        # What quicedge tells of the client where the original tells nothing.
        (forwarded(), forwarded(headers=[("host", "a"), ("x-forwarded-for", "::1")])),
        # Identifiers that are new for each request.
        (
            forwarded(headers=[("host", "a"), ("x-request-id", "0123456789abcdef01")]),
            forwarded(headers=[("host", "a"), ("x-request-id", "fedcba987654321001")]),
        ),
        # Validators of a file, which each edge makes in its own way.
        (answered(headers=[("etag", '"66-1"')]), answered(headers=[("etag", '"abc"')])),
        # Lines of one field, which are one list.
        (
            answered(headers=[("cache-control", "public"), ("cache-control", "no-cache")]),
            answered(headers=[("cache-control", "public, no-cache")]),
        ),
        # Dates relative to now.
        (
            answered(headers=[("expires", "Fri, 27 Nov 2026 10:00:00 GMT")]),
            answered(headers=[("expires", "Fri, 27 Nov 2026 10:00:02 GMT")]),
        ),
    ],
)
def test_noise_is_no_difference(original, ours):
    assert found(original, ours) == []


def test_an_etag_of_an_origin_is_compared():
    original, ours = forwarded(), forwarded()
    original.response.headers.append(("etag", '"a"'))
    ours.response.headers.append(("etag", '"b"'))
    assert found(original, ours) == [Effect(CLIENT, Aspect.HEADER, "etag")]


def test_a_response_of_another_maker_differs_by_its_status_or_content_alone():
    original = forwarded()
    original.response = Response(403, [("content-type", "text/html")], BUILT_IN)
    ours = forwarded()
    ours.response = Response(403, [("via", "1.1 quicedge"), ("x-powered-by", "Origin")], b"no")
    assert found(original, ours) == [Effect(CLIENT, Aspect.BODY)]
    ours.response.status = 401
    assert found(original, ours) == [Effect(CLIENT, Aspect.STATUS, "403->401")]


def test_an_error_in_place_of_another_answer_differs_by_its_status_alone():
    headers: Headers = [("location", "/x/"), ("x-frame-options", "DENY")]
    effects = found(answered(301, headers, BUILT_IN), answered(400))
    assert effects == [Effect(CLIENT, Aspect.STATUS, "301->400")]


def test_a_location_is_the_same_with_dot_segments_which_clients_remove():
    was = answered(301, [("location", "https://a.example.com/a/./b/../c?d=/../e")])
    now = answered(301, [("location", "https://a.example.com/a/c?d=/../e")])
    assert found(was, now) == []
    above = answered(301, [("location", "https://a.example.com/c?d=/../e")])
    assert found(was, above) == [Effect(CLIENT, Aspect.HEADER, "location")]


def redirected(over_tls: Outcome) -> Outcome:
    redirect = answered(308, [("location", "https://a.example.com:2002/x")], b"")
    redirect.over_tls = over_tls
    return redirect


def test_plain_http_that_is_served_and_redirected_is_compared_over_tls():
    plain = Sample("GET", "http://a.example.com/x")
    effects = found(answered(), redirected(answered(body=b"y")), plain)
    assert effects == [Effect(CLIENT, Aspect.SCHEME), Effect(CLIENT, Aspect.BODY)]


@pytest.mark.parametrize("ours", ["https://a.example.com/y", "https://a.example.com:2002/y", "/y"])
def test_a_location_that_differs_by_https_alone_is_the_same_where_plain_http_is_redirected(ours):
    plain = Sample("GET", "http://a.example.com:8080/x")
    original = answered(302, [("location", "http://a.example.com:8080/y")])
    over_tls = redirected(answered(302, [("location", ours)]))
    over_tls.response.headers = [("location", "https://a.example.com/x")]
    assert found(original, over_tls, plain) == [Effect(CLIENT, Aspect.SCHEME)]


def test_a_location_at_an_origin_differs_where_plain_http_is_redirected_too():
    plain = Sample("GET", "http://a.example.com/x")
    original = answered(302, [("location", "http://a.example.com/y")])
    leaked = redirected(answered(302, [("location", "http://10.0.0.9:8000/y")]))
    assert Effect(CLIENT, Aspect.HEADER, "location") in found(original, leaked, plain)


def test_redirects_to_https_of_both_are_compared_as_redirects():
    plain = Sample("GET", "http://a.example.com/x")
    original = answered(308, [("location", "https://a.example.com/x")], BUILT_IN)
    assert found(original, redirected(answered()), plain) == []
    other = answered(301, [("location", "https://a.example.com/x")], BUILT_IN)
    assert found(other, redirected(answered()), plain) == [
        Effect(CLIENT, Aspect.STATUS, "301->308")
    ]
