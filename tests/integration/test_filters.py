"""Every filter through each protocol: a real edge, real clients, a recording origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from quicedge.http.message import Fields
from tests.support.edge import RunningEdge, edge
from tests.support.matrix.clients import CLIENTS, exchange
from tests.support.matrix.origins import http1
from tests.support.matrix.spec import Arrivals, Case, Got, Seen
from tests.support.origins import origin
from tests.support.peers import free_port


@dataclass
class Filtered:
    """A request to a route with filters, and what both ends must see."""

    filters: str
    """Of the route."""
    got: Callable[[Got], bool]
    seen: Callable[[Seen], bool] | None = None
    """None: the request does not reach the origin."""
    path: bytes = b"/"
    """Behind the path of the route."""
    fields: Fields = field(default_factory=list)
    case: Case = field(default_factory=lambda: Case("answer"))


CASES: dict[str, Filtered] = {
    "redirect": Filtered(
        '{ redirect = { to = "https://b.test{uri}", status = 308 } }',
        lambda got: got.status == 308 and got.values(b"location")[0].endswith(b"redirect/?x=1"),
        path=b"/?x=1",
    ),
    "respond": Filtered(
        '{ respond = { status = 410, body = "gone over {protocol}" } }',
        lambda got: (got.status, bytes(got.body)[:10]) == (410, b"gone over "),
    ),
    "rewrite": Filtered(
        '{ rewrite = { strip_prefix = "/rewrite", add_prefix = "/new" } }',
        lambda got: bytes(got.body) == b"hello",
        lambda seen: seen.target == b"/new/page?q",
        path=b"/page?q",
    ),
    "headers": Filtered(
        '{ headers = { request = { set = { x-one = "{transport.protocol}", host = "in.test" } }, '
        'response = { remove = ["server"], add = { x-two = "{method}" } } } }',
        lambda got: got.values(b"x-two") == [b"GET"] and not got.values(b"server"),
        lambda seen: (
            seen.values(b"x-one")[0] in (b"quic", b"tcp") and seen.values(b"host") == [b"in.test"]
        ),
        case=Case("answer", response_fields=[(b"server", b"secret")]),
    ),
}


class Setting:
    def __init__(self, running: RunningEdge, port: int) -> None:
        self.edge = running
        self.origin_port = port


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    port = free_port()
    routes = ""
    for name, case in CASES.items():
        answers = case.filters.startswith(("{ redirect", "{ respond"))
        upstream = "" if answers else 'upstream = "app"\n'
        routes += f'[[routes]]\npath = "/{name}"\n{upstream}filters = [{case.filters}]\n'
    directory = tmp_path_factory.mktemp("filters")
    with edge(directory, f"http://127.0.0.1:{port}", routes) as running:
        yield Setting(running, port)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", CLIENTS)
async def test_a_filter_does_its_work_over_every_protocol(
    setting: Setting, version: str, name: str
) -> None:
    filtered, arrivals = CASES[name], Arrivals()
    case = filtered.case
    case = Case(**{**vars(case), "fields": [*case.fields, *filtered.fields]})
    async with origin(http1(case, arrivals), port=setting.origin_port):
        path = f"/{name}".encode() + filtered.path
        got = await exchange(version, setting.edge.port, case, path, arrivals.first)
    assert got.complete, got
    assert filtered.got(got), got
    if filtered.seen is None:
        assert not arrivals.requests
    else:
        (request,) = arrivals.requests
        assert filtered.seen(request), request
