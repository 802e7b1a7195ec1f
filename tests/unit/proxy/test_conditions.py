"""Routes with conditions: what they match, and in which order they are tried."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cryptography import x509

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.config.filterlimits import MATCHED_LENGTH
from quicedge.config.schema import Route, TlsFacts
from quicedge.http.message import Field, Request
from quicedge.proxy.client import TlsFacts as Facts
from quicedge.proxy.router import Router
from tests.support.client_info import StubClient
from tests.support.clientpki import authority
from tests.support.clientpki import client as certified
from tests.unit.proxy.test_router import calls


def asked(
    path: bytes = b"/", *fields: Field, method: bytes = b"GET", protocol: bytes | None = None
) -> Request:
    return Request(method, b"https", b"a.test", path, list(fields), protocol=protocol)


def found(router: Router, request: Request, client: StubClient | None = None) -> str | None:
    client = client or StubClient()
    route = router.find(request.authority, request.path, request, client)
    return None if route is None else route.upstream


_CERTIFIED = certified(
    "alice", authority("root"), names=[x509.UniformResourceIdentifier("spiffe://example/a")]
)
ALICE = StubClient(tls=Facts(certificate=ClientCertificate(_CERTIFIED.chain)))
IPV6 = StubClient(address=("2001:db8::7", 1))
CASES: list[tuple[dict[str, Any], Request, StubClient | None, bool]] = [
    ({"methods": ["GET", "HEAD"]}, asked(), None, True),
    ({"methods": ["POST"]}, asked(), None, False),
    ({"methods": ["GET"]}, asked(method=b"CONNECT", protocol=b"websocket"), None, True),
    ({"protocols": ["h3"]}, asked(), None, True),
    ({"protocols": ["h2", "http/1.1"]}, asked(), None, False),
    ({"protocols": ["http/1.1"]}, asked(), StubClient(http_version=b"1.1"), True),
    ({"extensions": ["png", "tar.gz"]}, asked(b"/a/x.PNG?y"), None, True),
    ({"extensions": ["png", "tar.gz"]}, asked(b"/x.tar.gz"), None, True),
    ({"extensions": ["gz"]}, asked(b"/gz"), None, False),
    ({"path_regex": r"^/u/[0-9]+$"}, asked(b"/u/42?x"), None, True),
    ({"path_regex": r"^/u/[0-9]+$"}, asked(b"/u/%34%32"), None, True),
    ({"path_regex": r"^/u/[0-9]+$"}, asked(b"/u/4x"), None, False),
    ({"path_regex": r"x"}, asked(b"/" + b"x" * (MATCHED_LENGTH + 1)), None, False),
    ({"headers": {"X-Beta": "1"}}, asked(b"/", (b"x-beta", b"1")), None, True),
    ({"headers": {"x-beta": "1"}}, asked(b"/", (b"x-beta", b"10")), None, False),
    ({"headers": {"x-beta": "*"}}, asked(b"/", (b"x-beta", b"")), None, True),
    ({"headers": {"x-beta": "*"}}, asked(), None, False),
    ({"headers": {"x-beta": "!"}}, asked(), None, True),
    ({"headers": {"x-beta": "!"}}, asked(b"/", (b"x-beta", b"")), None, False),
    ({"headers": {"user-agent": "~(?i)bot"}}, asked(b"/", (b"user-agent", b"A Bot")), None, True),
    ({"headers": {"user-agent": "~bot"}}, asked(b"/", (b"user-agent", b"Mozilla")), None, False),
    ({"query": {"v": "2"}}, asked(b"/x?a&v=2"), None, True),
    ({"query": {"v": "2"}}, asked(b"/x?v=3&v=2"), None, True),
    ({"query": {"debug": "*"}}, asked(b"/x?debug"), None, True),
    ({"query": {"debug": "*"}}, asked(b"/x?debugger=1"), None, False),
    ({"cookies": {"group": "b"}}, asked(b"/", (b"cookie", b'a=1; group="b"')), None, True),
    ({"cookies": {"group": "b"}}, asked(b"/", (b"cookie", b"group=a; x=group=b")), None, False),
    ({"clients": ["192.0.2.0/24"]}, asked(), None, True),
    ({"clients": ["2001:db8::/32"]}, asked(), IPV6, True),
    ({"clients": ["2001:db8::/32"]}, asked(), None, False),
    ({"clients": ["0.0.0.0/0", "::/0"]}, asked(), StubClient(address=None), False),
    ({"tls": TlsFacts(versions=["TLSv1.3"])}, asked(), None, True),
    ({"tls": TlsFacts(versions=["TLSv1.2"])}, asked(), None, False),
    ({"tls": TlsFacts(server_names=["A.test"])}, asked(), None, True),
    ({"tls": TlsFacts(server_names=["a.test"])}, asked(), StubClient(tls=Facts()), False),
    ({"tls": TlsFacts(client_certificate=True)}, asked(), ALICE, True),
    ({"tls": TlsFacts(client_certificate=True)}, asked(), None, False),
    ({"tls": TlsFacts(client_certificate=False)}, asked(), ALICE, False),
    ({"tls": TlsFacts(client_certificate=False)}, asked(), None, True),
    ({"tls": TlsFacts(client_subjects=["CN=alice,O=Example"])}, asked(), ALICE, True),
    ({"tls": TlsFacts(client_subjects=["CN=bob,O=Example", "~CN=al.*"])}, asked(), ALICE, True),
    ({"tls": TlsFacts(client_subjects=["CN=alice", "~CN=al"])}, asked(), ALICE, False),
    ({"tls": TlsFacts(client_subjects=["~.*"])}, asked(), None, False),
    ({"tls": TlsFacts(client_names=["spiffe://example/a"])}, asked(), ALICE, True),
    ({"tls": TlsFacts(client_names=["spiffe://example", "~example"])}, asked(), ALICE, False),
    ({"tls": TlsFacts(client_names=["~.*"])}, asked(), None, False),
    ({"tls": TlsFacts(early_data=True)}, asked(), StubClient(early_data=True), True),
    ({"tls": TlsFacts(early_data=False)}, asked(), StubClient(early_data=True), False),
    ({"methods": ["GET"], "query": {"v": "2"}}, asked(b"/?v=1"), None, False),
    ({"path_exact": "/a/b"}, asked(b"/a/./%62?x"), None, True),
    ({"path_exact": "/a/b"}, asked(b"/a/b/"), None, False),
    ({"host": ["b.test", "*.c.test", "A.test."]}, asked(), None, True),
    ({"host": ["b.test", "*.a.test"]}, asked(), None, False),
]


@pytest.mark.parametrize(("conditions", "request_", "client", "matches"), CASES)
def test_a_condition_decides(
    conditions: dict[str, Any], request_: Request, client: StubClient | None, matches: bool
) -> None:
    router = Router([Route(upstream="it", **conditions)])
    assert found(router, request_, client) == ("it" if matches else None)


ORDER = Router(
    [
        Route(upstream="any"),
        Route(upstream="host", host="a.test"),
        Route(upstream="plain", host="a.test", path="/api"),
        Route(upstream="first", host="a.test", path="/api", headers={"x": "1"}),
        Route(upstream="second", host="a.test", path="/api", headers={"x": "~."}),
        Route(upstream="deep", host="a.test", path="/api/v2", methods=["POST"]),
        Route(upstream="exact", host="a.test", path_exact="/api/v2/x", query={"e": "*"}),
        Route(upstream="wild", host="*.test", path="/api/v2/x/y"),
    ]
)


@pytest.mark.parametrize(
    ("request_", "upstream"),
    [
        (asked(b"/api/x"), "plain"),
        (asked(b"/api/x", (b"x", b"1")), "first"),
        (asked(b"/api/x", (b"x", b"2")), "second"),
        (asked(b"/api/v2/x", method=b"POST"), "deep"),
        (asked(b"/api/v2/x?e=1", method=b"POST"), "exact"),
        (asked(b"/api/v2/x"), "plain"),
        (asked(b"/api/v2/x", (b"x", b"1")), "first"),
        (asked(b"/api/v2/x/y"), "plain"),
        (asked(b"/"), "host"),
    ],
)
def test_exact_paths_then_longer_prefixes_then_conditions_in_order(
    request_: Request, upstream: str
) -> None:
    """A shorter prefix is tried only when no longer one applies, another host only then."""
    assert found(ORDER, request_) == upstream


def test_without_a_request_only_routes_without_conditions_are_found() -> None:
    route = ORDER.find(b"a.test", b"/api/v2/x?e=1")
    assert route is not None
    assert route.upstream == "plain"


def test_hosts_with_conditions_cost_the_same_for_any_number_of_routes() -> None:
    few, many = (
        Router(
            [
                Route(upstream="a", path_exact="/", methods=["PUT"]),
                *(Route(upstream="a", path=f"/s/{number}") for number in range(routes)),
            ]
        )
        for routes in (10, 10_000)
    )
    request, client = asked(b"/s/7/and/more"), StubClient()

    def cost(router: Router) -> int:
        assert found(router, request) == "a"
        return calls(lambda: router.find(b"a.test", request.path, request, client))

    assert cost(few) == cost(many)


def test_a_hostile_path_takes_a_pattern_no_time_to_speak_of() -> None:
    """Python's own engine would take hours for this one."""
    router = Router([Route(upstream="it", path_regex=r"^/(a+)+$")])
    request = asked(b"/" + b"a" * 15_000 + b"!")
    started = time.perf_counter()
    assert found(router, request) is None
    assert time.perf_counter() - started < 1
