"""Routes: host before path, the nearest wildcard, the longest prefix."""

from __future__ import annotations

import pytest

from quicedge.config.schema import Route
from quicedge.proxy.router import Router, host_of

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
