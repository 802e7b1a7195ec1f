"""Cookies of origins: their domains, paths and flags at the edge."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.loader import ConfigError
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Field, Response
from tests.support.filtered import World, toml


def world(rules: object, *before: object) -> World:
    """`before`: filters that requests pass earlier."""
    filters = [*before, {"rewrite_cookies": rules}]
    return World(f"[[routes]]\nupstream = 'app'\nfilters = {toml(filters)}")


def cookies(
    here: World,
    *values: str,
    host: bytes = b"a.test",
    path: bytes = b"/",
    fields: Sequence[Field] = (),
) -> list[str]:
    """The cookies that a client gets."""
    client = here.send(path, *fields, host=host)
    lines = [(b"set-cookie", value.encode("latin-1")) for value in values]
    here.origin.handler.response(Response(200, [*lines, (b"x-other", b"1")], b"1.1"))
    here.origin.handler.end(())
    assert client.value(b"x-other") == b"1"
    return [value.decode("latin-1") for value in client.values(b"set-cookie")]


def only(**tables: object) -> dict[str, object]:
    """Rules without those that count by default."""
    return {"domain": {}, "path": {}, **tables}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a=1; Domain=in.test; Path=/", "a=1; Path=/"),
        ("a=1;domain=.In.Test;HttpOnly", "a=1; HttpOnly"),
        ("a=1; Domain=127.0.0.1", "a=1"),
        # Of the client's host, or of others.
        ("a=1; Domain=a.test", "a=1; Domain=a.test"),
        ("a=1; Domain=test", "a=1; Domain=test"),
        ("a=1;  Domain=b.test;Path=/", "a=1;  Domain=b.test;Path=/"),
        ("a=1; Domain=", "a=1; Domain="),
        ("a=1; Domain", "a=1; Domain"),
        ("domain=in.test", "domain=in.test"),
        ("a=1", "a=1"),
        ("", ""),
        (";", ";"),
    ],
)
async def test_a_cookie_for_the_upstreams_own_domain_is_one_for_the_clients_host(
    value: str, found: str
) -> None:
    host = {"headers": {"request": {"set": {"host": "in.test"}}}}
    assert cookies(world({}, host), value) == [found]


async def test_a_cookie_for_a_domain_above_the_origins_host_is_too() -> None:
    host = {"headers": {"request": {"set": {"host": "app.in.test:8000"}}}}
    assert cookies(world({}, host), "a=1; Domain=in.test") == ["a=1"]
    assert cookies(world({}, host), "a=1; Domain=in.test", host=b"www.in.test") == [
        "a=1; Domain=in.test"
    ]


@pytest.mark.parametrize(
    ("rewrite", "path", "found"),
    [
        ({"strip_prefix": "/api"}, "/", "/api"),
        ({"strip_prefix": "/api"}, "/x/", "/api/x/"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/v1", "/api"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/v1/", "/api"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/v1/x", "/api/x"),
        # Sent to all that clients see of the origin.
        ({"strip_prefix": "/api", "add_prefix": "/v1/app"}, "/v1", "/api"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/", "/api"),
        ({"add_prefix": "/v1"}, "/v1", "/"),
        ({"add_prefix": "/v1"}, "/", "/"),
        # To nothing of it.
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "/v2", "/v2"),
        ({"path": "/index.php"}, "/x", "/x"),
        ({"strip_prefix": "/api"}, "x", "x"),
    ],
)
async def test_what_prefixes_were_rewritten_is_undone_in_the_paths_of_cookies(
    rewrite: dict[str, str], path: str, found: str
) -> None:
    here = world({}, {"rewrite": rewrite})
    assert cookies(here, f"a=1; Path={path}", path=b"/api/x") == [f"a=1; Path={found}"]


@pytest.mark.parametrize(
    ("old", "new", "value", "found"),
    [
        ("in.test", "{host}", "a=1; Domain=.IN.test; Secure", "a=1; Domain=a.test; Secure"),
        (".in.test", "b.test", "a=1; domain = in.test", "a=1; domain =b.test"),
        ("{host}", "b.test", "a=1; Domain=a.test", "a=1; Domain=b.test"),
        ("in.test", "b.test", "a=1; Domain=x.in.test", None),
        ("in.test", "{header.none}", "a=1; Domain=in.test", "a=1"),
        ("~[.]in[.]test$", "!", "a=1; Domain=x.In.test", "a=1"),
        (r"~(?i)^(?:.*[.])?([^.]+)[.]in[.]test$", r"\1.b.test", "a=1; Domain=x.IN.test",
         "a=1; Domain=x.b.test"),
        ("in.test", "{query.d}", "a=1; Domain=in.test", None),
    ],
)  # fmt: skip
async def test_a_domain_is_replaced_as_a_whole(
    old: str, new: str, value: str, found: str | None
) -> None:
    here = world(only(domain={old: new}))
    # A semicolon would be the end of the attribute.
    assert cookies(here, value, path=b"/?d=b.test;Path=/x") == [value if found is None else found]


@pytest.mark.parametrize(
    ("old", "new", "path", "found"),
    [
        ("/two/", "/", "/two/some/uri/", "/some/uri/"),
        ("/two/", "/", "/two", None),
        ("/two", "/", "/two", "/"),
        ("/two", "/one", "/twofold", None),
        ("/", "/api", "/", "/api"),
        ("/", "/api/", "/x", "/api/x"),
        ("/", "/{query.d}", "/x", None),
        (r"~(?i)^/user/([^/]+)", r"/u/\1", "/USER/ann/x", "/u/ann"),
        (r"~^(.*)$", r"\1{header.none}", "/x", "/x"),
    ],
)
async def test_a_path_is_replaced_by_whole_segments(
    old: str, new: str, path: str, found: str | None
) -> None:
    here = world(only(path={old: new}))
    got = cookies(here, f"a=1; Path={path}; Secure", path=b"/?d=x;y")
    assert got == [f"a=1; Path={path if found is None else found}; Secure"]


@pytest.mark.parametrize(
    ("flags", "value", "found"),
    [
        (["secure", "httponly", "samesite=lax"], "a=1", "a=1; Secure; HttpOnly; SameSite=Lax"),
        (["secure"], "a=1;secure; Path=/", "a=1;secure; Path=/"),
        (["samesite=strict"], "a=1; SameSite=None; Secure", "a=1; SameSite=Strict; Secure"),
        (["samesite=strict"], "a=1;samesite=strict", "a=1;samesite=strict"),
        (["nosecure", "nosamesite", "nohttponly"], "a=1; Secure; HTTPonly; SameSite=Lax", "a=1"),
        (["samesite=none", "secure"], "a=1; Path=/", "a=1; Path=/; Secure; SameSite=None"),
    ],
)
async def test_flags_are_set_and_removed(flags: list[str], value: str, found: str) -> None:
    assert cookies(world(only(flags={"a": flags})), value) == [found]


async def test_each_cookie_gets_the_flags_of_the_first_key_for_its_name() -> None:
    flags = {"Session": ["secure"], "~^tmp": ["nohttponly"], "*": ["httponly"]}
    here = world(only(flags=flags))
    given = ["other=1", "session=secure", "tmp_x=2; HttpOnly", "x", "=y"]
    assert cookies(here, *given) == [
        "other=1; HttpOnly", "session=secure; Secure", "tmp_x=2", "x; HttpOnly", "=y; HttpOnly",
    ]  # fmt: skip


async def test_the_cookies_of_the_edge_itself_stay() -> None:
    text = """
[upstreams.twice]
servers = ["http://127.0.0.1:2", "http://127.0.0.1:3"]
sticky_cookie = "server"
[[routes]]
split = { shares = { app = 1, twice = 1 }, sticky_cookie = "side" }
filters = [{ rewrite_cookies = { path = { "/" = "/x" }, flags = { "*" = ["nosecure"] } } }]
"""
    got = cookies(World(text), "server=1; Path=/; Secure", "a=1; Path=/; Secure")
    assert got[:2] == ["server=1; Path=/; Secure", "a=1; Path=/x"]
    assert re.fullmatch(r"side=\d{4}; Path=/; Secure; HttpOnly; SameSite=Lax", got[2])


async def test_cookies_that_a_filter_sets_itself_stay() -> None:
    respond = {"respond": {"body": "x"}}
    header = {"headers": {"response": {"add": {"set-cookie": "a=1; Path=/"}}}}
    here = World(
        "[[routes]]\nfilters = "
        + toml([{"rewrite_cookies": {"flags": {"*": ["secure"]}}}, header, respond])
    )
    assert here.send().values(b"set-cookie") == [b"a=1; Path=/"]


# --- nothing can be injected ----------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        ["a", "=", ";", " ", "Domain=", "Path=", "in.test", "a.test", "/", "/x", ".", "secure",
         "HttpOnly", "SameSite=", "Lax", ",", '"', "\t", "\xe9", "\\", "~", "1"]
    ),
    max_size=8,
).map("".join)  # fmt: skip
VALUES = st.sampled_from(
    ["{header.x-any}", "{query.q}", "/{header.x-any}", r"/\1{query.q}", "/", "{host}", "!", r"\1"]
)
NAMES = st.sampled_from(["upstream", "~(.*)", "~(x)?", "in.test", "/", "/x", "{host}"])
FLAGS = st.lists(
    st.sampled_from(["secure", "nohttponly", "samesite=none"]), min_size=1, max_size=3, unique=True
)


@settings(max_examples=300, deadline=None)
@given(
    domain=st.dictionaries(NAMES, VALUES, max_size=2),
    path=st.dictionaries(NAMES, VALUES, max_size=2),
    flags=st.dictionaries(st.sampled_from(["a", "~a", "*"]), FLAGS, max_size=2),
    values=st.lists(PIECES, min_size=1, max_size=3),
    any_field=PIECES,
    tail=PIECES,
)
async def test_no_rule_writes_a_field_that_is_none_or_an_attribute_of_its_own(
    domain: dict[str, str], path: dict[str, str], flags: dict[str, list[str]], values: list[str],
    any_field: str, tail: str,
) -> None:  # fmt: skip
    try:
        here = world({"domain": domain, "path": path, "flags": flags})
    except ConfigError:
        return
    query = "".join(c for c in tail if "!" <= c <= "~" and c != "#")
    # As no codec lets them through.
    hostile = (b"x-any", any_field.encode("latin-1") + b"\r\nset-cookie: b=2; Evil")
    given = [value.strip() for value in values]
    got = cookies(here, *given, path=b"/?q=" + query.encode(), fields=[hostile])
    assert len(got) == len(given)
    for before, after in zip(given, got, strict=True):
        assert FIELD_VALUE.fullmatch(after.encode("latin-1")), repr(after)
        old, new = _attributes(before), _attributes(after)
        assert old[0] == new[0], "the cookie itself stays"
        allowed = {"secure", "samesite", *(name.partition("=")[0].rstrip() for name in old[1:])}
        assert {name.partition("=")[0].rstrip() for name in new[1:]} <= allowed
        assert len(new) <= len(old) + 2


def _attributes(value: str) -> list[str]:
    pair, *rest = value.split(";")
    return [pair.strip(" \t"), *(part.strip(" \t").lower() for part in rest)]
