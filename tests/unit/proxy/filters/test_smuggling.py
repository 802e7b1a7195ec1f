"""No combination of rules smuggles, splits, or escapes the limits of a route: as an HTTP/1.1 origin
would read it."""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.loader import ConfigError
from quicedge.http.message import Field
from quicedge.http.target import is_ambiguous
from quicedge.upstream.h1_request import encode_head
from tests.support.filtered import World, toml

HOSTILE = st.text(st.sampled_from("a/.:?#%&=\\;,\"' \t\r\n\x00\x7f{}[]()<>0dA\u00e9"), max_size=12)
"""What clients might send if no codec stopped them."""
TEMPLATES = st.lists(
    st.sampled_from(
        ["{uri}", "{path}", "{query}", "{query.q}", "{header.x-any}", "{cookie.c}", "{authority}",
         "{match.1}", "/", "..", "a b", ": ", "%0d%0a", "%2e%2e/", "?", "//", "x"]
    ),
    max_size=4,
).map("".join).filter(str.strip)  # fmt: skip
RULES = st.fixed_dictionaries(
    {},
    optional={
        "set": st.dictionaries(st.sampled_from(["x-a", "cookie", "host"]), TEMPLATES, max_size=2),
        "default": st.dictionaries(st.just("x-b"), TEMPLATES, max_size=1),
        "add": st.dictionaries(st.sampled_from(["x-a", "te-x"]), TEMPLATES, max_size=1),
        "remove": st.lists(st.sampled_from(["x-any", "x-*", "cookie"]), max_size=2, unique=True),
    },
).filter(lambda rules: any(rules.values()))
REWRITES = st.fixed_dictionaries(
    {},
    optional={
        "strip_prefix": st.sampled_from(["/a", "/a/b"]),
        "pattern": st.sampled_from(["a", "^/(.*)$", "[^/]+$"]),
        "add_prefix": st.sampled_from(["/new", "/"]),
        "host": TEMPLATES.filter(bool),
    },
).filter(bool) | TEMPLATES.map(lambda text: {"path": f"/{text}"})
FILTERS = st.lists(
    st.one_of(
        REWRITES.map(lambda rewrite: {"rewrite": rewrite}),
        RULES.map(lambda rules: {"headers": {"request": rules}}),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150)
@given(
    filters=FILTERS,
    tail=HOSTILE.map(lambda text: "".join(c for c in text if "!" <= c <= "~" and c != "#")),
    header=HOSTILE,
    cookie=HOSTILE,
)
async def test_what_an_origin_reads_is_one_request_within_the_limits_of_its_route(
    filters: list[dict[str, object]], tail: str, header: str, cookie: str
) -> None:
    path = f"/a/{tail}".encode()
    if is_ambiguous(path):
        return  # refused before it is routed (`http.validation`)
    text = (
        "[[routes]]\nupstream = 'app'\nmax_body = 10\npath_regex = '^/a/(.*)|'\n"
        f"filters = {toml(filters)}"
    )
    try:
        here = World(text)
    except ConfigError:
        return
    fields: list[Field] = [
        (b"x-any", header.encode("latin-1")),
        (b"cookie", b"c=" + cookie.encode("latin-1")),
    ]
    client = here.send(path, *fields, method=b"POST", length=5, ended=False)
    exchange = client.exchange
    assert exchange is not None
    if client.status:
        assert client.status in (400, 414)
        assert not here.origin.requests
        return
    # The client's own fields are as no codec lets them through: they are not the rules'.
    forwarded = here.request
    own = {value for _, value in fields}
    lines = [line for line in forwarded.fields if line[1] not in own]
    codec = h11.Connection(h11.SERVER)
    codec.receive_data(encode_head(forwarded.with_fields(lines)) + b"12345")
    head = codec.next_event()
    assert isinstance(head, h11.Request)
    assert head.method == b"POST"
    assert head.target == forwarded.path
    assert [value for name, value in head.headers if name == b"content-length"] == [b"5"]
    assert not [name for name, _ in head.headers if name == b"transfer-encoding"]
    assert len([name for name, _ in head.headers if name == b"host"]) == 1
    data = codec.next_event()
    assert isinstance(data, h11.Data)
    assert data.data == b"12345"
    assert isinstance(codec.next_event(), h11.EndOfMessage)
    assert codec.trailing_data[0] == b"", "a second request"
    # Rewritten or not, it is on the route that the client asked for.
    assert exchange.route is here.config.routes[0]
    exchange.request_data(b"x" * 11)
    assert client.status == 413
    assert here.origin.aborted
