"""Every exchange of one specification, from every version of HTTP to every version of HTTP.

The tests are generated: {http/1.1, h2, h3} clients x {http/1.1, h2} origins x `CASES`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.matrix.clients import CLIENTS, exchange
from tests.support.matrix.origins import ORIGINS
from tests.support.matrix.spec import CASES, Arrivals, Case, ClientFault, Got, OriginFault, Seen
from tests.support.origins import eventually, origin
from tests.support.peers import free_port

MAX_BODY = 1_000_000
HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"}


class Setting:
    """A running edge, and the port on which it expects an origin of each version."""

    def __init__(self, running: RunningEdge, ports: dict[str, int]) -> None:
        self.edge = running
        self.origin_ports = ports


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    ports = {version: free_port() for version in ORIGINS}
    extra = f"""
[upstreams.two]
servers = ["http://127.0.0.1:{ports["h2"]}"]
protocol = "h2"
[[routes]]
path = "/h2/"
upstream = "two"
max_body = {MAX_BODY}
[[routes]]
path = "/http/1.1/"
upstream = "app"
max_body = {MAX_BODY}
"""
    upstream = f"http://127.0.0.1:{ports['http/1.1']}"
    with edge(tmp_path_factory.mktemp("matrix"), upstream, extra) as running:
        yield Setting(running, ports)


def ids(case: Case) -> str:
    return case.name.replace(" ", "-")


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("origin_version", ORIGINS)
@pytest.mark.parametrize("client_version", CLIENTS)
async def test_both_ends_see_the_same_exchange(
    setting: Setting, client_version: str, origin_version: str, case: Case
) -> None:
    arrivals = Arrivals()
    seen = arrivals.requests
    path = f"/{origin_version}/exchange".encode()
    script = ORIGINS[origin_version](case, arrivals)
    async with origin(script, port=setting.origin_ports[origin_version]):
        got = await exchange(client_version, setting.edge.port, case, path, arrivals)
        if case.client.wants_the_response:
            check_response(case, got)
        elif case.client is ClientFault.CUTS_ITS_REQUEST_SHORT:
            assert not got.complete, got
        if case.reaches_the_origin:
            await eventually(lambda: is_settled(case, seen))
            # A faulty origin may be asked again, but no honest one.
            assert len(seen) == 1 or case.origin is not OriginFault.NONE
            for request in seen:
                check_request(case, path, request)
        else:
            # Some bytes of a body that is too large may have been forwarded, never all of it.
            assert not any(request.complete for request in seen)


def is_settled(case: Case, seen: list[Seen]) -> bool:
    """Whether the origin knows how the exchange ended."""
    if not seen:
        return False
    if case.client is not ClientFault.NONE:
        return seen[-1].aborted
    return seen[-1].complete or case.origin is not OriginFault.NONE


def check_response(case: Case, got: Got) -> None:
    expected = case.status if case.answered is None else case.answered
    assert got.status == expected, got
    if case.answered is not None:
        assert got.complete
        return
    assert [status for status in got.interim if status != 100] == list(case.interim)
    content = b"".join(case.response) if case.has_content else b""
    if case.origin is OriginFault.DIES_IN_THE_BODY:
        assert not got.complete, "a truncated response was presented as complete"
        assert content.startswith(got.body)
        return
    assert got.complete
    assert bytes(got.body) == content
    assert [pair for pair in got.trailers if pair[0] != b"date"] == case.response_trailers
    for name, value in case.response_fields:
        assert value in got.values(name)
    assert not HOP_BY_HOP & {name for name, _ in got.fields} - {b"transfer-encoding", b"connection"}
    if case.response_declared and case.has_content:
        assert got.values(b"content-length") == [b"%d" % len(content)]


def check_request(case: Case, path: bytes, request: Seen) -> None:
    assert (request.method, request.target) == (case.method, path)
    if case.client is not ClientFault.NONE:
        assert not request.complete or case.client is ClientFault.LEAVES_DURING_THE_RESPONSE
        assert case.request_body.startswith(request.body)
        return
    if case.origin is OriginFault.NONE:
        assert request.complete
        assert not request.aborted
        assert bytes(request.body) == case.request_body
        assert request.trailers == case.trailers
    for name, value in case.fields:
        if name == b"cookie":
            # RFC 9113 section 8.2.3, RFC 9114 section 4.2.1: joined for HTTP/1.1.
            assert b"; ".join(request.values(b"cookie")) == b"a=1; b=2"
        elif name != b"te":
            assert value in request.values(name)
    if case.body is not None and case.declared:
        assert request.values(b"content-length") == [b"%d" % len(case.request_body)]
    assert request.values(b"via"), "the edge names itself (RFC 9110 section 7.6.3)"
