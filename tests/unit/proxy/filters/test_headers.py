"""Rules for header fields, and the placeholders in their values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Field
from tests.support.client_info import StubClient
from tests.support.filtered import World

ROUTE = '[[routes]]\nhost = "a.test"\npath = "/"\nupstream = "app"\n[[routes.filters]]\n'


async def test_request_fields_are_removed_set_and_added_in_this_order() -> None:
    world = World(
        ROUTE
        + """
headers.request.remove = ["x-old", "X-Internal-*"]
headers.request.set = { x-one = "1", "X-Two" = "{header.x-old}" }
headers.request.default = { x-three = "3", accept = "never" }
headers.request.add = { x-one = "again" }
"""
    )
    world.send(
        b"/", (b"x-old", b"old"), (b"x-internal-a", b"a"), (b"x-one", b"0"), (b"accept", b"*/*"),
    )  # fmt: skip
    fields = world.request.fields
    assert [v for n, v in fields if n == b"x-one"] == [b"1", b"again"]
    assert [v for n, v in fields if n == b"accept"] == [b"*/*"]
    assert (b"x-two", b"old") in fields, "placeholders tell of the client's own request"
    assert (b"x-three", b"3") in fields
    assert not [n for n, _ in fields if n in (b"x-old", b"x-internal-a")]


async def test_the_edges_own_fields_can_be_set_and_host_is_the_authority() -> None:
    world = World(ROUTE + 'headers.request.set = { host = "b.test:81", x-real-ip = "{client.ip}" }')
    world.send(b"/", (b"x-real-ip", b"10.0.0.1"))
    assert world.request.authority == b"b.test:81"
    assert world.asked(b"x-real-ip") == b"192.0.2.1", "not the client's word"
    assert world.asked(b"x-forwarded-host") == b"a.test"
    assert world.asked(b"host") is None


async def test_a_host_made_of_what_a_client_says_must_be_one() -> None:
    world = World(ROUTE + 'headers.request.set = { host = "{header.x-host}" }')
    client = world.send(b"/", (b"x-host", b"b.test/../x"))
    assert client.status == 400
    assert not world.origin.requests


async def test_response_fields_of_origin_and_edge_are_changed() -> None:
    world = World(
        ROUTE
        + """
headers.response.remove = ["server", "x-app-*"]
headers.response.set = { x-rtt = "{transport.rtt_ms}", x-served-by = "{route.upstream}" }
headers.response.default = { cache-control = "no-cache" }
headers.response.add = { set-cookie = "seen=1" }
"""
    )
    client = world.send()
    theirs = {b"server": b"apache", b"x-app-version": b"1", b"set-cookie": b"a=b"}
    world.origin.respond(200, theirs, b"x")
    assert client.values(b"set-cookie") == [b"a=b", b"seen=1"]
    assert client.value(b"x-rtt") == b"12.300"
    assert client.value(b"x-served-by") == b"app"
    assert client.value(b"cache-control") == b"no-cache"
    assert client.value(b"server") is None
    assert client.value(b"x-app-version") is None


PLACEHOLDERS = {
    "?query": b"?q=1&q=2", "&query": b"&q=1&q=2",
    "client.ip": b"192.0.2.1", "client.port": b"50000", "host": b"a.test",
    "authority": b"a.test:4433", "method": b"GET", "path": b"/p", "protocol": b"h3",
    "query": b"q=1&q=2", "route.host": b"a.test", "route.path": b"/", "route.upstream": b"app",
    "scheme": b"https", "tls.cipher": b"TLS_AES_128_GCM_SHA256",
    "tls.group": b"X25519MLKEM768", "tls.server_name": b"a.test",
    "tls.version": b"TLSv1.3", "trace_id": None, "transport.congestion_window": b"14720",
    "transport.connection_id": b"c0", "transport.loss": b"0.0020",
    "transport.min_rtt_ms": b"10.000", "transport.protocol": b"quic",
    "transport.quic_version": b"v1", "transport.rtt_ms": b"12.300", "uri": b"/p?q=1&q=2",
    "cookie.b": b"2", "cookie.none": None, "header.accept": b"x, y", "query.q": b"1",
    "query.none": None,
}  # fmt: skip
"""Each with its value for one request; None: the field is not sent."""


@pytest.mark.parametrize("name", PLACEHOLDERS)
async def test_placeholders(name: str) -> None:
    world = World(ROUTE + f'headers.request.set = {{ x-value = "{{{name}}}" }}')
    world.send(
        b"/p?q=1&q=2", (b"cookie", b"a=1; b=2"), (b"accept", b"x"), (b"accept", b"y"),
        host=b"a.test:4433",
    )  # fmt: skip
    assert world.asked(b"x-value") == PLACEHOLDERS[name]


async def test_a_query_that_is_not_there_has_no_mark_either() -> None:
    world = World(ROUTE + 'headers.request.set = { x-value = "/new{?query}{&query}" }')
    world.send(b"/p")
    assert world.asked(b"x-value") == b"/new"


async def test_what_is_unknown_of_a_client_is_left_out() -> None:
    world = World(ROUTE + 'headers.request.set = { x-port = "{client.port}" }')
    world.send(client=StubClient(address=None))
    assert world.asked(b"x-port") is None


BYTES = st.binary(max_size=30)


@given(
    value=st.text("abc{}:/ \t.", max_size=12).map(
        lambda text: re.sub(r"[{}]", r"\g<0>\g<0>", text)
    ),
    header=BYTES,
    path=BYTES.map(lambda data: b"/" + bytes(b for b in data if 0x21 <= b <= 0x7E and b != 0x23)),
)
async def test_no_rule_can_split_a_request_or_frame_it(
    value: str, header: bytes, path: bytes
) -> None:
    """Even of fields that no codec lets through."""
    world = World(
        ROUTE
        + f"""
headers.request.set = {{ x-a = {value + "{header.x-any}"!r}, x-b = "{{uri}}{{cookie.any}}" }}
headers.response.set = {{ x-c = "{{header.x-any}}" }}
"""
    )
    fields: list[Field] = [(b"x-any", header), (b"cookie", b"any=" + header)]
    client = world.send(path, *fields)
    world.origin.respond()
    for name, found in [*world.request.fields, *client.fields]:
        if name in (b"x-a", b"x-b", b"x-c"):
            assert FIELD_VALUE.fullmatch(found)
            assert found
    framing = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}
    assert not framing & {name for name, _ in world.request.fields}


async def test_a_client_writes_no_field_that_wsgi_takes_for_one_of_a_rule() -> None:
    rules = "request = { set = { x-tenant = 'a' }, remove = ['x-token', 'x-in-*'] }"
    given = [(b"x_tenant", b"b"), (b"x-tenant", b"b"), (b"x_token", b"1"), (b"x_in_a", b"1")]
    route = f"[[routes]]\nupstream = 'app'\nfilters = [{{ headers = {{ {rules} }} }}]\n"
    here = World(route)
    here.send(b"/", *given)
    assert here.asked(b"x-tenant") == b"a"
    assert not {b"x_tenant", b"x_token", b"x_in_a"} & {name for name, _ in here.request.fields}
    here = World(f"{route}\n[forwarding]\nunderscores = true")
    here.send(b"/", *given)
    assert (here.asked(b"x-tenant"), here.asked(b"x_tenant")) == (b"a", b"b")


async def test_no_trailer_brings_a_field_that_a_filter_has_written() -> None:
    rules = "request = { set = { x-tenant = 'a' }, remove = ['x-token'] }"
    here = World(f"[[routes]]\nupstream = 'app'\nfilters = [{{ headers = {{ {rules} }} }}]")
    client = here.send(method=b"POST", ended=False)
    assert client.exchange is not None
    trailers = [(b"x-tenant", b"b"), (b"x_tenant", b"b"), (b"x-token", b"1"), (b"x-sum", b"7")]
    client.exchange.request_end(trailers)
    assert here.origin.trailers == [(b"x-sum", b"7")]
