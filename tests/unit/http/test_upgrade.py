"""Requests for tunnels in one form for all HTTP versions."""

from __future__ import annotations

import pytest

from quicedge.http.message import Field, Request
from quicedge.http.upgrade import (
    accept_value,
    ordinary_request,
    switched,
    switching_fields,
    tunnel_request,
)
from quicedge.http.validation import MessageError, MessageLimits, validate_request

KEY: Field = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
ACCEPT: Field = (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
LIMITS = MessageLimits(extended_connect=True)
CONNECT: tuple[Field, ...] = (
    (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"),
    (b":authority", b"a.test"), (b":path", b"/chat"),
)  # fmt: skip


def upgrade(*fields: Field, method: bytes = b"GET", ended: bool = True) -> Request:
    return Request(method, b"https", b"a.test", b"/chat", list(fields), ended=ended)


def test_an_upgrade_and_an_extended_connect_are_the_same_request() -> None:
    asked = tunnel_request(upgrade(KEY, (b"origin", b"https://a.test")), b"WebSocket")
    extended = validate_request([*CONNECT, KEY, (b"origin", b"https://a.test")], LIMITS)
    assert asked is not None
    assert extended.fields == [(b"origin", b"https://a.test")], "it uses no key"
    extended.fields.insert(0, KEY)
    assert asked == extended
    assert asked.protocol == b"websocket"
    assert not asked.ended


def test_the_ordinary_request_behind_it() -> None:
    request = upgrade(KEY)
    asked = tunnel_request(request, b"websocket")
    assert asked is not None
    assert ordinary_request(asked) == request


@pytest.mark.parametrize(
    ("token", "protocol"),
    [
        (b"foo, websocket", b"websocket"), (b"tcp", b"tcp"), (b"SPDY/3.1", b"spdy/3.1"),
        (b"h2c", None), (b"H2C, foo", None), (b"HTTP/2.0", None), (b"TLS/1.0", None), (b"", None),
        (b"a b", None), (b"foo/", None),
    ],
)  # fmt: skip
def test_which_tokens_become_tunnels(token: bytes, protocol: bytes | None) -> None:
    """h2c would hide requests from routing, policy and logs."""
    asked = tunnel_request(upgrade(KEY), token)
    assert (asked.protocol if asked is not None else None) == protocol


@pytest.mark.parametrize(
    "request_", [upgrade(KEY, method=b"POST"), upgrade(KEY, method=b"POST", ended=False)]
)
def test_only_a_get_without_content_asks_for_a_tunnel(request_: Request) -> None:
    assert tunnel_request(request_, b"websocket") is None


@pytest.mark.parametrize("key", [None, b"", b"short", b"x" * 24, KEY[1] + b"=", KEY[1][:-1]])
def test_a_malformed_key_is_refused(key: bytes | None) -> None:
    fields = [] if key is None else [(b"sec-websocket-key", key)]
    with pytest.raises(MessageError):
        tunnel_request(upgrade(*fields), b"websocket")
    with pytest.raises(MessageError):
        tunnel_request(upgrade(KEY, KEY), b"websocket")


def test_the_accept_of_the_rfc() -> None:
    assert accept_value(KEY[1]) == ACCEPT[1]


SWITCH: tuple[Field, ...] = ((b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"))


def test_a_switch_is_checked_against_our_key_only() -> None:
    fields = [*SWITCH, ACCEPT, (b"sec-websocket-protocol", b"chat"), (b"content-length", b"0")]
    assert switched(fields, b"websocket", KEY[1]) == [(b"sec-websocket-protocol", b"chat")]
    assert ACCEPT in switched(fields, b"websocket", None), "the client checks it"


@pytest.mark.parametrize(
    "fields",
    [
        [SWITCH[0], ACCEPT],
        [SWITCH[1], ACCEPT],
        [SWITCH[0], (b"upgrade", b"h2c"), ACCEPT],
        list(SWITCH),
        [*SWITCH, (b"sec-websocket-accept", b"wrong")],
        [*SWITCH, ACCEPT, (b"content-length", b"5")],
        [*SWITCH, ACCEPT, (b"transfer-encoding", b"chunked")],
    ],
)
def test_a_faulty_switch_is_refused(fields: list[Field]) -> None:
    with pytest.raises(MessageError):
        switched(fields, b"websocket", KEY[1])


def test_the_accept_is_computed_for_origins_that_send_none() -> None:
    asked = tunnel_request(upgrade(KEY), b"websocket")
    assert asked is not None
    fields = switching_fields(asked, [(b"date", b"x")])
    head = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    assert fields == [*head, ACCEPT, (b"date", b"x")]
    assert switching_fields(asked, [ACCEPT]) == [*head, ACCEPT]


@pytest.mark.parametrize(
    "section",
    [
        [field for field in CONNECT if field[0] != b":path"],
        [field for field in CONNECT if field[0] != b":scheme"],
        [*(field for field in CONNECT if field[0] != b":path"), (b":path", b"/a b")],
        [*(field for field in CONNECT if field[0] != b":path"), (b":path", b"/x/..%2f")],
        [*(field for field in CONNECT if field[0] != b":scheme"), (b":scheme", b"h t")],
        [*CONNECT, (b"content-length", b"0")],
        [(b":method", b"GET"), *CONNECT[1:]],
    ],
)
def test_a_malformed_extended_connect_is_refused(section: list[Field]) -> None:
    with pytest.raises(MessageError):
        validate_request(section, LIMITS)


def test_connect_without_a_protocol_stays_refused() -> None:
    with pytest.raises(MessageError) as refused:
        validate_request([(b":method", b"CONNECT"), (b":authority", b"a.test:443")], LIMITS)
    assert refused.value.status_hint == 501
