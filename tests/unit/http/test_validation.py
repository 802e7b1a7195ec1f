"""Validation of messages: known request smuggling vectors are rejected, by name."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import NAMES_REMEMBERED, REMEMBERED_NAME
from quicedge.http import validation
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Field
from quicedge.http.validation import (
    MessageError,
    MessageLimits,
    validate_request,
    validate_response,
    validate_trailers,
)

GET: list[Field] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.com"),
    (b":path", b"/"),
]
LIMITS = MessageLimits()


def head(*fields: Field, **pseudo: bytes | None) -> list[Field]:
    """A good GET with pseudo-header fields replaced (None: left out) and fields added."""
    section = []
    for name, value in GET:
        changed = pseudo.pop(name[1:].decode(), value)
        if changed is not None:
            section.append((name, changed))
    return section + [(b":" + n.encode(), v) for n, v in pseudo.items() if v] + list(fields)


REJECTED = {
    # pseudo-header fields
    "method missing": head(method=None),
    "method with a space": head(method=b"GET /x"),
    "method empty": head(method=b""),
    "method with a line break": head(method=b"GET\r\n"),
    "scheme missing": head(scheme=None),
    "scheme malformed": head(scheme=b"ht tp"),
    "path missing": head(path=None),
    "path empty": head(path=b""),
    "path with a request line in it": head(path=b"/ HTTP/1.1\r\nx: y"),
    "path with a space": head(path=b"/a b"),
    "path with a fragment": head(path=b"/a#b"),
    "path relative": head(path=b"a"),
    "path absolute form": head(path=b"https://other/"),
    "asterisk without OPTIONS": head(path=b"*"),
    "authority and host missing": head(authority=None),
    "authority empty": head(authority=b""),
    "authority with userinfo": head(authority=b"user@example.com"),
    "authority with a path": head(authority=b"a/@b"),
    "authority with a space": head(authority=b"example.com evil"),
    "authority with two ports": head(authority=b"example.com:80:80"),
    "host differs from authority": head((b"host", b"other.com")),
    "host twice": head((b"host", b"a"), (b"host", b"b"), authority=None),
    "duplicate pseudo": [*GET, (b":path", b"/other")],
    "unknown pseudo": head(status=b"200"),
    "pseudo after a field": [*GET[:3], (b"x", b"y"), GET[3]],
    "pseudo after cookie": [*GET[:3], (b"cookie", b"y"), GET[3]],
    "protocol without CONNECT": head(protocol=b"websocket"),
    # field names and values
    "name empty": head((b"", b"x")),
    "name no token": head((b"a(b", b"x")),
    "name upper case": head((b"X-Test", b"x")),
    "name with a colon": head((b"x:y", b"x")),
    "name with a space": head((b"x y", b"x")),
    "value with CR LF": head((b"x", b"a\r\nevil: 1")),
    "value with LF": head((b"x", b"a\nb")),
    "value with NUL": head((b"x", b"a\0b")),
    "value with a control": head((b"x", b"a\x01b")),
    "value with DEL": head((b"x", b"a\x7fb")),
    "value with a leading space": head((b"x", b" a")),
    "value with a trailing tab": head((b"x", b"a\t")),
    "known name with a bad value": head((b"user-agent", b"a\r\nb")),
    # content-length
    "content-length with a sign": head((b"content-length", b"+5")),
    "content-length with an underscore": head((b"content-length", b"1_0")),
    "content-length empty": head((b"content-length", b"")),
    "content-length negative": head((b"content-length", b"-1")),
    "content-length as a list": head((b"content-length", b"5, 5")),
    "content-length hexadecimal": head((b"content-length", b"0x10")),
    "content-length differing": head((b"content-length", b"5"), (b"content-length", b"6")),
    "content-length enormous": head((b"content-length", b"9" * 40)),
    # connection-specific fields
    "connection": head((b"connection", b"close")),
    "keep-alive": head((b"keep-alive", b"timeout=5")),
    "proxy-connection": head((b"proxy-connection", b"close")),
    "transfer-encoding": head((b"transfer-encoding", b"chunked")),
    "upgrade": head((b"upgrade", b"h2c")),
    "te gzip": head((b"te", b"gzip")),
    "te twice": head((b"te", b"trailers"), (b"te", b"trailers")),
    "content_length": head((b"content_length", b"5")),
    "transfer_encoding": head((b"transfer_encoding", b"chunked")),
    "content.length": head((b"content.length", b"5")),
    "path beyond ASCII": head(path="/ü".encode()),
    "path that servers disagree about": head(path=b"/a/..%2fb"),
    # CONNECT
    "CONNECT with a path": head(method=b"CONNECT", scheme=None),
    "CONNECT with a scheme": head(method=b"CONNECT", path=None),
    "CONNECT without authority": head(method=b"CONNECT", scheme=None, path=None, authority=None),
    "extended CONNECT that was not announced": head(method=b"CONNECT", protocol=b"websocket"),
    "CONNECT with content-length": head(
        (b"content-length", b"1"), method=b"CONNECT", scheme=None, path=None
    ),
    "extended CONNECT without a path": head(method=b"CONNECT", protocol=b"websocket", path=None),
}


@pytest.mark.parametrize("section", REJECTED.values(), ids=REJECTED.keys())
def test_rejected(section: list[Field]) -> None:
    with pytest.raises(MessageError) as caught:
        validate_request(section, LIMITS)
    assert caught.value.status_hint == 400


@pytest.mark.parametrize(
    ("section", "status"),
    [
        (head(*[(b"x-%d" % n, b"") for n in range(200)]), 431),
        (head((b"x", b"y" * 70_000)), 431),
        (head(method=b"CONNECT", scheme=None, path=None), 501),
        (head((b"expect", b"y 100-continue"), method=b"POST"), 417),
    ],
    ids=["too many fields", "too large", "CONNECT", "an expectation in disguise"],
)
def test_refused_with_another_status(section: list[Field], status: int) -> None:
    with pytest.raises(MessageError) as caught:
        validate_request(section, LIMITS)
    assert caught.value.status_hint == status


def test_a_good_request() -> None:
    request = validate_request(
        head((b"content-length", b"5"), (b"content-length", b"5"), (b"te", b"trailers"),
             (b"cookie", b"a=1"), (b"x-test", "ü".encode()), (b"cookie", b"b=2"),
             (b"host", b"example.com"), method=b"POST", path=b"/a?b=%20|{}"),
        LIMITS,
    )  # fmt: skip
    assert (request.method, request.authority, request.path) == (
        b"POST", b"example.com", b"/a?b=%20|{}",
    )  # fmt: skip
    assert request.content_length == 5
    assert request.fields == [
        (b"te", b"trailers"), (b"x-test", "ü".encode()), (b"cookie", b"a=1; b=2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "authority", [b"example.com", b"example.com:8443", b"[::1]", b"[::1]:443", b"127.0.0.1:1"]
)
def test_good_authorities_from_either_place(authority: bytes) -> None:
    assert validate_request(head(authority=authority), LIMITS).authority == authority
    only_host = head((b"host", authority), authority=None)
    assert validate_request(only_host, LIMITS).authority == authority


def test_options_of_the_server_itself() -> None:
    assert validate_request(head(method=b"OPTIONS", path=b"*"), LIMITS).path == b"*"


def test_cookie_crumbs_are_one_field() -> None:
    crumbs = [(b"cookie", b"c%d=v" % index) for index in range(500)]
    fields = [(b"x-%d" % index, b"") for index in range(LIMITS.max_fields - 5)]
    request = validate_request(head(*crumbs, *fields), LIMITS)
    assert [value for name, value in request.fields if name == b"cookie"] == [
        b"; ".join(value for _, value in crumbs)
    ]
    with pytest.raises(MessageError) as caught:
        validate_request(head(*crumbs, *fields, (b"x", b"")), LIMITS)
    assert caught.value.status_hint == 431


def test_connect_where_it_is_allowed() -> None:
    allowed = MessageLimits(allow_connect=True, extended_connect=True)
    request = validate_request(head(method=b"CONNECT", scheme=None, path=None), allowed)
    assert (request.authority, request.path) == (b"example.com", b"")
    extended = validate_request(head(method=b"CONNECT", protocol=b"websocket"), allowed)
    assert extended.protocol == b"websocket"


@pytest.mark.parametrize(
    "field",
    [(b":path", b"/"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked"),
     (b"host", b"x"), (b"authorization", b"x"), (b"x", b"a\r\nb"), (b"X", b"y"),
     (b"connection", b"close")],
)  # fmt: skip
def test_what_trailers_must_not_hold(field: Field) -> None:
    with pytest.raises(MessageError):
        validate_trailers([field], LIMITS)


def test_trailers_are_bounded() -> None:
    with pytest.raises(MessageError) as caught:
        validate_trailers([(b"x", b"y" * 70_000)], LIMITS)
    assert caught.value.status_hint == 431


@pytest.mark.parametrize(
    "section",
    [
        [],
        [(b"x", b"y")],
        [(b":status", b"20")],
        [(b":status", b"abc")],
        [(b":status", b"099")],
        [(b":status", b"200"), (b"x", b"a\r\nb")],
        [(b":status", b"200"), (b"X", b"a")],
        [(b":status", b"200"), (b":status", b"200")],
    ],
)
def test_malformed_responses(section: list[Field]) -> None:
    with pytest.raises(MessageError):
        validate_response(section)


NAMES = st.sampled_from(
    [b":method", b":path", b":authority", b":scheme", b"host", b"cookie", b"x", b"te",
     b"content-length", b""]
) | st.binary(max_size=5)  # fmt: skip
VALUES = st.sampled_from([b"GET", b"/", b"https", b"a.b", b"trailers", b"5"]) | st.binary(
    max_size=8
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.booleans())
def test_whatever_is_accepted_can_be_written_to_http1(
    section: list[Field], start_good: bool
) -> None:
    with suppress(MessageError):
        request = validate_request((GET if start_good else []) + section, LIMITS)
        line = b"%b %b HTTP/1.1" % (request.method, request.path)
        assert len(line.split(b" ")) == 3
        for part in (line, request.authority, *(n + v for n, v in request.fields)):
            assert not set(part) & {0, 10, 13}


@given(st.lists(st.binary(max_size=6), max_size=5))
def test_values_checked_together_are_judged_as_each_of_them_alone(values: list[bytes]) -> None:
    section = head(*((b"x-value", value) for value in values))
    accepted = True
    try:
        validate_request(section, LIMITS)
    except MessageError:
        accepted = False
    assert accepted == all(FIELD_VALUE.fullmatch(value) for value in values)


@pytest.mark.parametrize("value", [b"a\nb", b"\n", b"a\r", b" a", b"a ", b"\ta", b"a\t", b"a\0"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_malformed_value_among_good_ones_is_found(value: bytes, at: int) -> None:
    lines: list[Field] = [(b"accept", b"*/*"), (b"x-a", b""), (b"x-b", b"b c")]
    lines[at] = (lines[at][0], value)
    with pytest.raises(MessageError, match=lines[at][0].decode()):
        validate_request(head(*lines), LIMITS)


def test_a_pseudo_header_field_after_content_length_is_malformed() -> None:
    section = [*GET[:3], (b"content-length", b"0"), GET[3]]
    with pytest.raises(MessageError, match="after a regular field"):
        validate_request(section, LIMITS)


def test_names_that_were_seen_before_mean_the_same_and_do_not_add_up() -> None:
    for round_ in range(2):
        for number in range(NAMES_REMEMBERED + 10):
            line = b"x-%d" % number, b"%d" % round_
            assert validate_request(head(line), LIMITS).fields == [line]
    long = b"x" * (REMEMBERED_NAME + 1)
    assert validate_request(head((long, b"")), LIMITS).fields == [(long, b"")]
    assert long not in validation._plain_names
    assert len(validation._plain_names) <= NAMES_REMEMBERED
    for name in (b"connection", b"content_length", b"X-Upper", b":path", b"te"):
        for _ in range(2):
            with pytest.raises(MessageError):
                validate_request(head((name, b"x")), LIMITS)
