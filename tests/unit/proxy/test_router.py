"""Routes: host before path, the nearest wildcard, the longest prefix."""

from __future__ import annotations

import posixpath
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.limits import AUTHORITIES_REMEMBERED, MAX_AUTHORITY
from quicedge.config.schema import Route
from quicedge.http.target import is_ambiguous
from quicedge.proxy.router import Router, host_of
from tests.support.filtered import World

ROUTER = Router(
    [
        Route(upstream="any"),
        Route(upstream="any-api", path="/api"),
        Route(upstream="exact", host="www.example.com"),
        Route(upstream="exact-deep", host="www.example.com", path="/a/b"),
        Route(upstream="exact-dir", host="www.example.com", path="/dir/"),
        Route(upstream="wild", host="*.example.com"),
        Route(upstream="nearer", host="*.sub.example.com"),
    ]
)


@pytest.mark.parametrize(
    ("authority", "path", "upstream"),
    [
        (b"other.test", b"/", "any"),
        (b"other.test", b"/api", "any-api"),
        (b"other.test", b"/api/x", "any-api"),
        (b"other.test", b"/api?x", "any-api"),
        (b"other.test", b"/apiary", "any"),
        (b"www.example.com", b"/", "exact"),
        (b"WWW.Example.com:8443", b"/", "exact"),
        (b"www.example.com.", b"/", "exact"),
        (b"www.example.com", b"/a/b/c", "exact-deep"),
        (b"www.example.com", b"/a/bc", "exact"),
        (b"www.example.com", b"/dir/x", "exact-dir"),
        (b"www.example.com", b"/dir", "exact"),
        (b"img.example.com", b"/", "wild"),
        (b"a.b.example.com", b"/", "wild"),
        (b"x.sub.example.com", b"/", "nearer"),
        (b"example.com", b"/", "any"),
        (b"[::1]:443", b"/", "any"),
    ],
)
def test_routes(authority: bytes, path: bytes, upstream: str) -> None:
    route = ROUTER.find(authority, path)
    assert route is not None
    assert route.upstream == upstream


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        (b"/api/../x", "any"),
        (b"/api/%2e%2e/x", "any"),
        (b"/x/../api/y", "any-api"),
        (b"/%61pi", "any-api"),
        (b"/%61%70%69/x?y", "any-api"),
        (b"/x?y=/../api", "any"),
        (b"*", "any"),
    ],
)
def test_routes_are_found_by_the_path_in_normal_form(path: bytes, upstream: str) -> None:
    route = ROUTER.find(b"other.test", path)
    assert route is not None
    assert route.upstream == upstream


def test_a_configured_path_is_taken_in_normal_form_too() -> None:
    router = Router([Route(upstream="a", path="/%7Euser"), Route(upstream="b", path="/ü")])
    for path, upstream in ((b"/~user/x", "a"), (b"/%7euser", "a"), (b"/%c3%bc", "b")):
        route = router.find(b"x", path)
        assert route is not None
        assert route.upstream == upstream


def test_no_route() -> None:
    assert Router([Route(upstream="a", host="a.test")]).find(b"b.test", b"/") is None


@pytest.mark.parametrize(
    ("authority", "host"),
    [(b"A.b:1", "a.b"), (b"[::1]:443", "::1"), (b"127.0.0.1", "127.0.0.1"), (b"x.", "x")],
)
def test_the_host_of_an_authority(authority: bytes, host: str) -> None:
    assert host_of(authority) == host


@given(
    st.lists(st.text("ab/", max_size=6).map(lambda text: "/" + text), min_size=1, max_size=12),
    st.text("ab/", max_size=12).map(lambda text: "/" + text),
)
def test_the_longest_prefix_wins_whatever_the_table_is(prefixes: list[str], path: str) -> None:
    routes = [Route(upstream=f"{number}", path=prefix) for number, prefix in enumerate(prefixes)]
    matching = [
        route
        for route in routes
        if path.startswith(route.path)
        and (route.path.endswith("/") or path[len(route.path) :][:1] in ("", "/"))
    ]
    longest = max(matching, key=lambda route: len(route.path), default=None)  # of equals the first
    assert Router(routes).find(b"x", path.encode()) is longest


def calls(work: Callable[[], object]) -> int:
    """The calls that work makes, of functions in C too."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_a_lookup_does_not_depend_on_the_number_of_routes() -> None:
    few, many = (
        Router([Route(upstream="a", path=f"/service/{number}") for number in range(routes)])
        for routes in (10, 10_000)
    )
    for router in (few, many):
        assert router.find(b"x", b"/service/7/and/more") is not None
    assert calls(lambda: many.find(b"x", b"/service/7/and/more")) == calls(
        lambda: few.find(b"x", b"/service/7/and/more")
    )


def test_a_path_of_many_slashes_is_looked_up_no_deeper_than_the_routes() -> None:
    router = Router([Route(upstream="a", path="/a/b")])
    assert router.find(b"x", b"/" * 8000) is None
    assert calls(lambda: router.find(b"x", b"/" * 8000)) < 50


def test_authorities_are_remembered_within_bounds() -> None:
    router = Router([Route(upstream="any")])

    def held(authorities: Iterable[bytes]) -> int:
        tracemalloc.start()
        for authority in authorities:
            assert router.find(authority, b"/") is not None
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used

    assert held(b"%d.example" % number for number in range(20 * AUTHORITIES_REMEMBERED)) < 1 << 20
    assert held(b"%d" % number + b"x" * MAX_AUTHORITY for number in range(5000)) < 1 << 16


GUARDED = """
[[routes]]
upstream = "app"

[[routes]]
path = "/admin"
filters = [{ respond = { status = 403 } }]

[[routes]]
path = "/img/"
extensions = ["php"]
filters = [{ respond = { status = 403 } }]

[[routes]]
path = "/api"
upstream = "app"

[[routes]]
path = "/api"
path_regex = "^/api/projects/[^/]+$"
upstream = "app"
"""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/admin/users", 403),
        (b"//admin", 400),
        (b"///admin/users", 400),
        (b"/admin%2fusers", 400),
        (b"/admin%5Cusers", 400),
        (b"/admin\\users", 400),
        (b"/%2Fadmin", 400),
        (b"/img//x.php", 403),
        (b"/img%2Fx.php", 400),
        (b"//img/x.php", 400),
    ],
)
async def test_no_way_to_write_slashes_leads_past_a_route(path: bytes, status: int) -> None:
    here = World(GUARDED)
    assert here.send(path).status == status
    assert not here.origin.requests


async def test_requests_past_a_route_cost_no_conditions_built_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A route for some thousand networks of clients takes 15 ms to build."""
    here = World(GUARDED)
    monkeypatch.delattr("quicedge.proxy.router.conditions_of")
    assert here.send(b"/img%2Fx.php").status == 400


@pytest.mark.parametrize(
    "path",
    [
        b"/a//b",
        b"/a%2Fb",
        b"/https://example.com/a",
        b"/?next=//admin",
        b"/x?path=/admin%2Fusers",
        b"/api//v1",
        b"/api/projects/group%2Fproject",
        b"/administration%2Fx",
        b"/img//x.png",
    ],
)
async def test_slashes_that_lead_to_the_same_route_are_passed_on_as_sent(path: bytes) -> None:
    here = World(GUARDED)
    here.send(path)
    assert here.request.path == path


@given(
    st.lists(
        st.sampled_from(
            ["/", "//", "%2f", "%2F", "%5C", "\\", "admin", "%61dmin", "x", ".", "..", "%2e"]
        ),
        max_size=9,
    )
)
async def test_no_origin_finds_a_guarded_path_in_what_was_routed_past_it(parts: list[str]) -> None:
    path = ("/" + "".join(parts)).encode()
    if is_ambiguous(path):
        return  # refused before it is routed (`http.validation`)
    here = World(GUARDED)
    here.send(path)
    if not here.origin.requests:
        return
    plain = unquote_to_bytes(path).replace(b"\\", b"/")
    for seen in (plain, re.sub(rb"/+", b"/", plain)):
        resolved = posixpath.normpath(re.sub(rb"^/+", b"/", seen))
        assert not resolved.startswith(b"/admin/")
        assert resolved != b"/admin"
