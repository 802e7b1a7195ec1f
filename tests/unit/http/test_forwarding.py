"""The table of fields that only the edge writes."""

from __future__ import annotations

import pytest

from quicedge.config.limits import NAMES_REMEMBERED
from quicedge.http.forwarding import Reserved, Written
from quicedge.http.message import Request
from quicedge.http.semantics import EdgeContext, request_to_origin

TABLE = Reserved(frozenset((b"x-quic-version",)))
BELIEVED = [
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"x-forwarded-ssl",
    b"x-forwarded", b"x-forwarded-by", b"x-real-ip", b"true-client-ip", b"x-client-ip",
    b"cf-connecting-ip", b"x-original-url", b"x-rewrite-url", b"proxy", b"early-data",
    b"x-quic-version", b"proxy-authorization", b"keep-alive",
]  # fmt: skip
INNOCENT = [
    b"accept", b"cookie", b"authorization", b"x-request-id", b"x-api-key", b"sec-fetch-mode",
    b"forwarded-by-me", b"x-forward", b"x_api_key", b"grpc-timeout", b"via", b"trailer",
]  # fmt: skip


def forwarded(*names: bytes, context: EdgeContext) -> set[bytes]:
    """Which of a client's fields an origin gets."""
    request = Request(b"GET", b"https", b"a.test", b"/", [(name, b"forged") for name in names])
    return {
        name for name, value in request_to_origin(request, context).fields if value == b"forged"
    }


@pytest.mark.parametrize("name", BELIEVED)
def test_no_client_writes_what_origins_believe(name: bytes) -> None:
    context = EdgeContext("192.0.2.1", reserved=TABLE)
    assert not forwarded(name, context=context)
    assert not TABLE.pass_trailers([(name, b"forged")])


@pytest.mark.parametrize("name", [name for name in BELIEVED if b"-" in name])
@pytest.mark.parametrize("mark", [b"_", b".", b"~"])
def test_names_that_cgi_takes_for_one_are_one(name: bytes, mark: bytes) -> None:
    alike = name.replace(b"-", mark)
    assert not forwarded(alike, context=EdgeContext("192.0.2.1", reserved=TABLE))
    told = Reserved(TABLE.further, tell_underscores=True)
    assert forwarded(alike, context=EdgeContext("192.0.2.1", reserved=told)) == {alike}
    assert not forwarded(name, context=EdgeContext("192.0.2.1", reserved=told))


@pytest.mark.parametrize("name", INNOCENT)
def test_other_fields_pass(name: bytes) -> None:
    assert name not in TABLE


def test_trailers_bring_no_fields_of_a_head() -> None:
    trailers = [(b"cookie", b"a=1"), (b"via", b"1.1 x"), (b"x-checksum", b"1")]
    assert TABLE.pass_trailers(trailers) == [(b"x-checksum", b"1")]


def test_what_a_filter_writes_is_dropped_with_what_cgi_takes_for_it() -> None:
    names = (b"x-user", b"x_user", b"X.user".lower(), b"x-users", b"x-in-a", b"x_in_b", b"accept")
    fields = [(name, b"1") for name in names]
    written = Written([b"x-user"], [b"x-in-"])
    assert [name for name, _ in written.dropped_from(fields)] == [b"x-users", b"accept"]
    told = Written([b"x-user"], [b"x-in-"], tell_underscores=True)
    left = [name for name, _ in told.dropped_from(fields)]
    assert left == [b"x_user", b"x.user", b"x-users", b"x_in_b", b"accept"]
    assert Written([]).dropped_from(fields) == fields


def test_an_ordinary_name_that_a_filter_writes_is_none_that_passes() -> None:
    table = Reserved().with_further(frozenset((b"referer", b"user_agent")))
    trailers = [(b"referer", b"x"), (b"user-agent", b"x"), (b"user_agent", b"x"), (b"origin", b"x")]
    assert table.pass_trailers(trailers) == [(b"origin", b"x")]
    assert Reserved().pass_trailers(trailers) == trailers


def test_what_was_asked_for_before_is_answered_the_same() -> None:
    table = Reserved()
    for _ in range(2):
        for number in range(NAMES_REMEMBERED + 10):
            assert b"x-%d" % number not in table
        assert b"x-forwarded-port" in table
        assert b"x_real_ip" in table
    assert len(table.passed) <= NAMES_REMEMBERED


def test_a_trailer_does_not_make_a_field_pass_that_the_edge_changes() -> None:
    table = Reserved()
    assert table.pass_trailers([(b"max-forwards", b"3")])
    request = Request(b"OPTIONS", b"https", b"a.test", b"*", [(b"max-forwards", b"3")])
    fields = request_to_origin(request, EdgeContext("192.0.2.1", reserved=table)).fields
    assert (b"max-forwards", b"2") in fields
