"""Rewriting of targets: what origins are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.filterlimits import MATCHED_LENGTH
from quicedge.http.grammar import AUTHORITY, PATH
from quicedge.http.target import is_ambiguous, normal_path
from tests.support.filtered import World

ROUTE = "[[routes]]\nupstream = 'app'\npath_regex = '^/u/(.*)|'\n[[routes.filters]]\nrewrite = "


@pytest.mark.parametrize(
    ("settings", "path", "target"),
    [
        ("{ strip_prefix = '/api' }", b"/api/x?y=1", b"/x?y=1"),
        ("{ strip_prefix = '/api' }", b"/api", b"/"),
        ("{ strip_prefix = '/api/' }", b"/api/", b"/"),
        ("{ strip_prefix = '/api' }", b"/apiary", b"/apiary"),
        ("{ strip_prefix = '/api' }", b"/x/../%61pi/y", b"/y"),
        ("{ strip_prefix = '/api' }", b"/%2e/other", b"/%2e/other"),
        ("{ strip_prefix = '/api' }", b"/api//evil.test/x", b"/evil.test/x"),
        ("{ add_prefix = '/app' }", b"/x?y", b"/app/x?y"),
        ("{ add_prefix = '/app/' }", b"/", b"/app/"),
        ("{ strip_prefix = '/a', add_prefix = '/b' }", b"/a/x", b"/b/x"),
        (
            r"{ pattern = '^/old/(\w+)', replacement = '/new/\1/page' }",
            b"/old/x/y",
            b"/new/x/page/y",
        ),
        (r"{ pattern = '^/(?P<n>a+)', replacement = '/x/\g<n>' }", b"/aa/b", b"/x/aa/b"),
        (r"{ pattern = 'a', replacement = 'b' }", b"/a/a", b"/b/a"),
        ("{ path = '/index.php?path={path}' }", b"/x?y=1", b"/index.php?path=/x&y=1"),
        ("{ path = '/users/{match.1}' }", b"/u/ann?x", b"/users/ann?x"),
        ("{ path = '/fixed', query = 'drop' }", b"/x?y=1", b"/fixed"),
        ("{ query = 'drop' }", b"/x?y=1", b"/x"),
        ("{ strip_prefix = '/api' }", b"/api?x=/../y", b"/?x=/../y"),
    ],
)
async def test_a_target_is_rewritten(settings: str, path: bytes, target: bytes) -> None:
    world = World(ROUTE + settings)
    world.send(path)
    assert world.request.path == target


async def test_the_log_has_what_the_client_asked_for() -> None:
    world = World(ROUTE + "{ strip_prefix = '/api' }")
    client = world.send(b"/api/x")
    world.origin.respond()
    assert client.exchange is not None
    client.exchange.delivered()
    assert world.log.records[0].path == "/api/x"


async def test_a_server_wide_request_keeps_its_target() -> None:
    world = World(ROUTE + "{ add_prefix = '/app' }")
    world.send(b"*", method=b"OPTIONS")
    assert world.request.path == b"*"


async def test_the_host_is_rewritten() -> None:
    world = World(ROUTE + "{ host = 'app.internal:8000' }")
    world.send()
    assert (world.request.authority, world.asked(b"x-forwarded-host")) == (
        b"app.internal:8000",
        b"a.test",
    )


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        (r"{ pattern = '/x', replacement = '/../admin' }", b"/a/x"),
        (r"{ pattern = '/x$', replacement = '/%2e%2e/' }", b"/a/x"),
        ("{ path = '/files/{query.name}' }", b"/?name=../../etc/passwd"),
        ("{ path = '/files/{query.name}' }", b"/?name=..%2f..%2fetc"),
        ("{ host = '{query.to}' }", b"/?to=a/b"),
        ("{ host = '{query.to}' }", b"/"),
    ],
)
async def test_what_servers_might_understand_in_different_ways_is_refused(
    settings: str, path: bytes
) -> None:
    world = World(ROUTE + settings)
    assert world.send(path).status == 400
    assert not world.origin.requests


async def test_a_path_too_long_for_its_pattern_is_not_passed_on_as_it_is() -> None:
    route = "[[routes]]\nupstream = 'app'\nmax_uri = 100_000\n[[routes.filters]]\nrewrite = "
    here = World(route + "{ pattern = '^/', replacement = '/tenant/' }")
    assert here.send(b"/" + b"x" * MATCHED_LENGTH).status == 414
    assert not here.origin.requests
    here.send(b"/x?" + b"y" * MATCHED_LENGTH)
    assert here.request.path.startswith(b"/tenant/x?y")


async def test_a_target_cannot_grow_without_bound() -> None:
    world = World(ROUTE + "{ path = '/{query.x}{query.x}' }")
    assert world.send(b"/?x=" + b"y" * 9000).status == 414


PARTS = st.lists(
    st.sampled_from(
        [
            "/",
            "a",
            "api",
            ".",
            "..",
            "%2e",
            "%2F",
            "%5c",
            "\\",
            ";x",
            "?",
            "q=1",
            "%0d%0a",
            "//",
            "~",
        ]
    ),
    max_size=8,
).map(lambda parts: "/" + "".join(parts))
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "strip_prefix": st.sampled_from(["/api", "/a", "/"]),
        "pattern": st.sampled_from(["a", "^/", "api(.*)", "[^/]*$", ".*"]),
        "add_prefix": st.sampled_from(["/b", "/", "/b/c/"]),
        "host": st.sampled_from(["b.test", "{header.x-any}", "{query.q}"]),
    },
).filter(bool)


@given(settings=STEPS, replacement=PARTS, path=PARTS, header=st.text("a.:/@ %\r\n[]", max_size=8))
async def test_no_rewriting_smuggles_or_escapes(
    settings: dict[str, str], replacement: str, path: str, header: str
) -> None:
    if "pattern" in settings:
        settings["replacement"] = replacement.replace("\\", "\\\\")
    written = ", ".join(f"{key} = {value!r}" for key, value in settings.items())
    if is_ambiguous(path.encode()):
        return  # refused before it is routed (`http.validation`)
    world = World(f"{ROUTE}{{ {written} }}")
    client = world.send(path.encode(), (b"x-any", header.encode()))
    if client.status:
        assert client.status in (400, 414)
        return
    request = world.request
    assert PATH.fullmatch(request.path)
    assert not is_ambiguous(request.path)
    assert AUTHORITY.fullmatch(request.authority)
    if request.path != path.encode():
        assert not request.path.startswith(b"//")
        assert b"/../" not in normal_path(request.path) + b"/"
