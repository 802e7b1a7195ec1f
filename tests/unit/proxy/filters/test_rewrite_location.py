"""Redirects of origins: where they lead at the edge."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicedge.config.loader import ConfigError
from quicedge.http.grammar import FIELD_VALUE
from quicedge.http.message import Fields, Response
from tests.support.filtered import Client, World, toml

OWN = "{}"


def world(rules: str = OWN, *before: str) -> World:
    """`before`: filters that requests pass earlier."""
    filters = ", ".join([*before, f"{{ rewrite_location = {rules} }}"])
    return World(f"[[routes]]\nupstream = 'app'\nfilters = [{filters}]")


def answered(here: World, *fields: tuple[bytes, bytes], status: int = 302,
             path: bytes = b"/", host: bytes = b"a.test") -> Client:  # fmt: skip
    client = here.send(path, host=host)
    here.origin.handler.response(Response(status, list(fields), b"1.1"))
    here.origin.handler.end(())
    return client


def location(here: World, url: str, **request: bytes) -> str:
    client = answered(here, (b"location", url.encode()), **request)  # type: ignore[arg-type]
    value = client.value(b"location")
    assert value is not None
    return value.decode()


def mapped(rules: dict[str, str]) -> str:
    return toml({"map": rules})


def of(start: str, to: str) -> World:
    return world(mapped({start: to}))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        # Of its server, and of the host that it was asked for.
        ("http://127.0.0.1:1/elsewhere?a=1#b", "/elsewhere?a=1#b"),
        ("HTTP://127.0.0.1:1/x", "/x"),
        ("http://127.0.0.1:1", "/"),
        ("http://127.0.0.1:1?a=1", "/?a=1"),
        ("http://127.0.0.1:1#b", "/#b"),
        ("http://a.test/x", "/x"),
        ("http://A.Test:80/x", "/x"),
        ("http://a.test.:80/x", "/x"),
        ("http://a.test:/x", "/x"),
        ("http://a.test:1/x", "/x"),
        ("//127.0.0.1:1/x", "/x"),
        # Of others, and what clients know the edge by.
        ("https://a.test/x", "https://a.test/x"),
        ("//a.test/x", "//a.test/x"),
        ("http://127.0.0.1:11/x", "http://127.0.0.1:11/x"),
        ("http://127.0.0.1/x", "http://127.0.0.1/x"),
        ("https://127.0.0.1:1/x", "https://127.0.0.1:1/x"),
        ("http://b.test/x", "http://b.test/x"),
        ("ftp://127.0.0.1:1/x", "ftp://127.0.0.1:1/x"),
        ("http://a.test.evil.test/x", "http://a.test.evil.test/x"),
        # Relative.
        ("/x", "/x"),
        ("x", "x"),
        ("?a=1", "?a=1"),
        ("", ""),
        ("mailto:a@a.test", "mailto:a@a.test"),
        # What browsers may take for another host.
        ("http://a.test@evil.test/", "http://a.test@evil.test/"),
        ("http://127.0.0.1:1@evil.test/", "http://127.0.0.1:1@evil.test/"),
        ("http://user:secret@127.0.0.1:1/x", "http://user:secret@127.0.0.1:1/x"),
        ("http://127.0.0.1:1\\@evil.test/", "http://127.0.0.1:1\\@evil.test/"),
        ("http:\\\\127.0.0.1:1/x", "http:\\\\127.0.0.1:1/x"),
        ("http://127.0.0.1:1//evil.test/x", "/evil.test/x"),
        ("http://127.0.0.1:1/\\evil.test/x", "/evil.test/x"),
    ],
)
async def test_the_upstreams_own_addresses_become_the_edges(url: str, found: str) -> None:
    assert location(world(), url) == found


async def test_the_host_that_a_filter_asks_for_is_the_origins_own() -> None:
    here = world(OWN, "{ headers = { request = { set = { host = 'in.test:8000' } } } }")
    assert location(here, "http://in.test:8000/x") == "/x"
    assert location(here, "http://in.test:1/x") == "/x"
    assert location(here, "http://in.test/x") == "http://in.test/x"
    assert location(here, "http://a.test/x") == "http://a.test/x"


@pytest.mark.parametrize(
    ("rewrite", "url", "found"),
    [
        ({"strip_prefix": "/api"}, "http://a.test/login?x", "/api/login?x"),
        ({"strip_prefix": "/api/"}, "http://a.test", "/api/"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "http://a.test/v1/login", "/api/login"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "http://a.test/v1", "/api/"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "http://a.test/v1?x", "/api/?x"),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "http://a.test/v10/login", None),
        ({"strip_prefix": "/api", "add_prefix": "/v1"}, "http://a.test/login", None),
        ({"path": "/index.php"}, "http://a.test/login", "/login"),
        ({"strip_prefix": "/api"}, "/login", None),
        ({"strip_prefix": "/api"}, "https://a.test/login", None),
    ],
)
async def test_what_prefixes_were_rewritten_is_undone(
    rewrite: dict[str, str], url: str, found: str | None
) -> None:
    here = world(OWN, "{ rewrite = " + toml(rewrite) + " }")
    assert location(here, url, path=b"/api/x") == (url if found is None else found)


async def test_several_rewrites_are_undone_in_reverse_even_of_the_top_level() -> None:
    text = """
[[filters]]
rewrite_location = {}
[[filters]]
rewrite = { strip_prefix = "/shop" }
[[routes]]
upstream = "app"
filters = [{ rewrite = { add_prefix = "/v1" } }]
[[routes]]
path = "/plain"
upstream = "app"
"""
    here = World(text)
    assert location(here, "http://a.test/v1/x", path=b"/shop/y") == "/shop/x"
    assert location(here, "http://a.test/v1/x", path=b"/plain") == "/shop/v1/x"


@pytest.mark.parametrize(
    ("start", "to", "url", "found"),
    [
        ("http://b.test/app/", "/", "http://b.test/app/x?y", "/x?y"),
        ("http://b.test/app/", "/", "http://b.test/app/", "/"),
        ("http://b.test/app/", "/", "http://b.test/app", None),
        ("http://b.test/app", "/new/", "http://b.test/app/x", "/new/x"),
        ("http://b.test/app", "/new", "http://b.test/app?x", "/new?x"),
        ("http://b.test/app", "/new", "http://b.test/apple", None),
        ("http://b.test/app", "/new", "http://b.test/App", None),
        ("http://b.test", "https://a.test", "http://b.test/x", "https://a.test/x"),
        ("http://b.test/", "https://a.test", "http://b.test/x", "https://a.test/x"),
        ("http://b.test/", "https://a.test", "http://b.test", "https://a.test"),
        ("http://b.test", "https://a.test", "http://b.test.evil.test/x", None),
        ("http://b.test", "https://a.test", "http://b.test:80/x", "https://a.test/x"),
        ("http://b.test:80", "https://a.test", "http://B.test/x", "https://a.test/x"),
        ("https://b.test", "https://a.test", "https://b.test:443", "https://a.test"),
        ("http://b.test", "https://a.test", "http://b.test:8080/x", None),
        ("http://b.test", "https://a.test", "http://u@b.test/x", None),
        ("http://[::1]:8000/", "/", "http://[::1]:8000/x", "/x"),
        ("http://{host}/", "https://{authority}/", "http://a.test/x", "https://a.test:8443/x"),
        ("http://", "https://", "http://anywhere.test/x", "https://anywhere.test/x"),
        ("http://", "{scheme}://", "HTTP://anywhere.test/x", "https://anywhere.test/x"),
        ("http://", "https://", "/x", None),
        ("/old", "/new", "/old/x", "/new/x"),
        ("/old/", "https://b.test/new/", "/old/x", "https://b.test/new/x"),
        ("/", "/app/", "/x", "/app/x"),
        ("/", "/app/", "//evil.test/x", None),
        ("/", "/app/", "/\\evil.test/x", None),
        ("/", "/app/", "http://b.test/x", None),
        ("~^http://(?P<name>[^/.]+)[.]in[.]test(:[0-9]+)?/", r"/\g<name>/\2", "http://x.in.test:8/y",
         "/x/:8"),
        (r"~^http://[^/]+(/.*)$", r"\1", "http://b.test//evil.test", "/evil.test"),
        (r"~^http://[^/]+(/.*)$", r"https://{host}\1", "http://b.test/x", "https://a.test/x"),
        (r"~[.]php$", r"/", "/x.html", None),
    ],
)  # fmt: skip
async def test_a_rule_replaces_the_beginning_of_a_url_by_whole_segments(
    start: str, to: str, url: str, found: str | None
) -> None:
    here = of(start, to)
    assert location(here, url, host=b"a.test:8443") == (url if found is None else found)


async def test_the_first_rule_that_matches_counts() -> None:
    rules = {"http://b.test/x/": "/one/", "http://b.test/": "/two/", "upstream": "/three"}
    here = world(mapped(rules))
    assert location(here, "http://b.test/x/y") == "/one/y"
    assert location(here, "http://b.test/y") == "/two/y"
    assert location(here, "http://127.0.0.1:1/y") == "/three/y"


@pytest.mark.parametrize("status", [200, 201, 301, 302, 303, 307, 308, 404])
async def test_a_location_is_rewritten_whatever_the_status(status: int) -> None:
    client = answered(world(), (b"location", b"http://127.0.0.1:1/x"), status=status)
    assert (client.status, client.value(b"location")) == (status, b"/x")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("5; url=http://127.0.0.1:1/x", "5; url=/x"),
        ("0;URL = 'http://127.0.0.1:1/x'", "0;URL = '/x'"),
        ('0; url="http://127.0.0.1:1/x"', '0; url="/x"'),
        ('0; url="http://127.0.0.1:1/x', '0; url="http://127.0.0.1:1/x'),
        ("5; url=/x", "5; url=/x"),
        ("5", "5"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
    ],
)
async def test_refresh_leads_to_the_edge_too(value: str, found: str) -> None:
    client = answered(world(), (b"refresh", value.encode()), status=200)
    assert client.value(b"refresh") == found.encode()


async def test_other_fields_are_rewritten_when_they_are_named() -> None:
    fields = ((b"content-location", b"http://127.0.0.1:1/x"), (b"location", b"http://a.test/y"))
    client = answered(world(), *fields)
    assert client.value(b"content-location") == b"http://127.0.0.1:1/x"
    client = answered(world("{ fields = ['Content-Location'] }"), *fields)
    assert client.value(b"content-location") == b"/x"
    assert client.value(b"location") == b"http://a.test/y"


async def test_what_the_edge_says_itself_is_not_rewritten() -> None:
    here = World(
        "[[routes]]\nfilters = [{ rewrite_location = "
        + mapped({"upstream": "/", "https://b.test/": "/"})
        + " }, { redirect = { to = 'https://b.test{uri}' } }]"
    )
    assert here.send(b"/x").value(b"location") == b"https://b.test/x"


async def test_a_url_that_would_grow_beyond_all_measure_stays() -> None:
    here = of("http://b.test/", "https://a.test/{header.x-long}/")
    client = here.send(b"/", (b"x-long", b"x" * 9000))
    here.origin.respond(302, {b"location": b"http://b.test/x"})
    assert client.value(b"location") == b"http://b.test/x"


async def test_a_location_too_long_for_its_pattern_stays() -> None:
    url = "http://b.test/" + "x" * 17_000
    assert location(of("~^http://b[.]test/(.*)", r"/\1"), url) == url
    assert location(of("http://b.test/", "/"), url) == url.removeprefix("http://b.test")


# --- nothing can be injected ----------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        ["http://", "https:", "//", "/", "127.0.0.1:1", "a.test", "b.test", ":80", "@", "\\", "?",
         "#", "x", "app", "..", " ", "%0d%0a", "%2f", ";", ",", "'", '"', "url=", "\xe9", "=", "0"]
    ),
    max_size=8,
).map("".join)  # fmt: skip
STARTS = st.sampled_from(
    ["upstream", "http://", "http://b.test", "http://b.test/app/", "/", "/app", "http://{host}/",
     "http://{header.x-any}/", "/{query.q}", "~(.*)", "~^http://(.*?)/(.*)", "~(x)?"]
)  # fmt: skip
TARGETS = st.sampled_from(
    ["/", "/app/", "https://", "https://b.test", "https://{authority}/{header.x-any}", "{uri}",
     "/{query.q}", r"\1", r"/\1", r"\0{header.x-any}"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    rules=st.dictionaries(STARTS, TARGETS, min_size=1, max_size=3),
    name=st.sampled_from([b"location", b"refresh", b"content-location"]),
    url=PIECES,
    any_field=PIECES,
    tail=PIECES,
)
async def test_no_rule_writes_a_field_that_is_none_or_makes_a_path_another_host(
    rules: dict[str, str], name: bytes, url: str, any_field: str, tail: str
) -> None:
    table = {"map": rules, "fields": ["location", "refresh", "content-location"]}
    try:
        here = world(toml(table))
    except ConfigError:
        return
    value = url.strip().encode("latin-1")
    path = "/p?q=" + "".join(c for c in tail if "!" <= c <= "~" and c != "#")
    # As no codec lets them through.
    hostile = any_field.encode("latin-1") + b"\r\nset-cookie: a=b"
    client = here.send(path.encode(), (b"x-any", hostile))
    given: Fields = [(name, value), (b"x-other", b"1")]
    here.origin.handler.response(Response(302, list(given), b"1.1"))
    here.origin.handler.end(())
    own = [line for line in client.fields if line[0] in (name, b"x-other")]
    assert [line[0] for line in own] == [name, b"x-other"]
    found = own[0][1]
    assert FIELD_VALUE.fullmatch(found), json.dumps(found.decode("latin-1"))
    if found != value and name != b"refresh":
        assert found[:2] not in (b"//", b"/\\"), found
