"""Redirects and fixed responses."""

from __future__ import annotations

import pytest

from quicedge.telemetry.outcomes import Outcome
from tests.support.client_info import StubClient
from tests.support.filtered import World


def world(**settings: object) -> World:
    lines = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
    route = "[[routes]]\npath_regex = '^/u/(?P<user>.*)|'\n[[routes.filters]]\n"
    return World(f"{route}[routes.filters.redirect]\n{lines}")


@pytest.mark.parametrize(
    ("to", "path", "location"),
    [
        ("https://www.b.test{uri}", b"/x?y=1", b"https://www.b.test/x?y=1"),
        ("https://{host}:8443{path}", b"/x?y=1", b"https://a.test:8443/x"),
        ("/new", b"/old", b"/new"),
        ("/find?q={query.word}", b"/s?word=a%20b&x=1", b"/find?q=a%20b"),
        ("/users/{match.1}", b"/u/ann", b"/users/ann"),
        ("/users/{match.user}", b"/u/ann", b"/users/ann"),
        ("/new{?query}", b"/x?y=1", b"/new?y=1"),
        ("/new?a{&query}", b"/x", b"/new?a"),
        ("/{{literal}}", b"/", b"/{literal}"),
        ("/{header.x-to}", b"/", b"/a%20%22b%22"),
        ("https://b.test{uri}", b"*", b"https://b.test/"),
        ("{path}", b"//evil.test/x", b"/evil.test/x"),
        ("{path}", b"/\\evil.test/x", b"/evil.test/x"),
    ],
)
async def test_a_redirect_goes_where_its_template_says(
    to: str, path: bytes, location: bytes
) -> None:
    client = world(to=to).send(path, (b"x-to", b'a "b"'))
    assert (client.status, client.value(b"location")) == (302, location)
    assert client.body == b"302 Found\n"


async def test_a_redirect_has_the_configured_status_and_no_content_for_head() -> None:
    client = world(to="/x", status=308).send(method=b"HEAD")
    assert (client.status, client.body, client.ended) == (308, b"", True)
    assert client.value(b"content-length") == b"23"


async def test_a_location_beyond_all_measure_is_not_sent() -> None:
    client = world(to="https://b.test{uri}{uri}").send(b"/" + b"x" * 5000)
    assert client.status == 414
    assert client.exchange is not None
    assert client.exchange.outcome is Outcome.URI_TOO_LONG


async def test_a_fixed_response_needs_no_upstream() -> None:
    text = """
[[routes]]
[[routes.filters]]
respond = { status = 410, body = "gone, {client.ip}", content_type = "text/html" }
"""
    client = World(text).send(client=StubClient())
    assert (client.status, client.body) == (410, b"gone, 192.0.2.1")
    assert client.value(b"content-type") == b"text/html"
    lines = World(text.replace('"gone, {client.ip}"', '"Allow: /\\n{header.none}\\n"')).send()
    assert lines.body == b"Allow: /\n\n"
    empty = World(text.replace('"gone, {client.ip}"', '"{header.none}"')).send()
    assert (empty.status, empty.body, empty.value(b"content-length")) == (410, b"", b"0")


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        ("text/html; charset=utf-8", b"<a href='/&#x27;&gt;&lt;x&gt;'>&quot;&amp;\xc3\xa9"),
        ("image/svg+xml", b"<a href='/&#x27;&gt;&lt;x&gt;'>&quot;&amp;\xc3\xa9"),
        ("text/plain", b"<a href='/'><x>'>\"&\xc3\xa9"),
    ],
)
async def test_what_clients_say_is_escaped_in_content_that_scripts_run_in(
    media_type: str, shown: bytes
) -> None:
    settings = f'body = "<a href=\'{{path}}\'>{{header.x-any}}", content_type = "{media_type}"'
    here = World(f"[[routes]]\nfilters = [{{ respond = {{ {settings} }} }}]")
    client = here.send(b"/'><x>", (b"x-any", '"&é'.encode()))
    assert client.body == shown
