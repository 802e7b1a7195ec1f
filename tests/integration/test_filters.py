"""Every filter through each protocol: a real edge, real clients, a recording origin."""

from __future__ import annotations

import asyncio
import signal
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quicedge.http.message import Fields
from tests.integration.test_version_matrix import (
    MAX_BODY,
    check_request,
    check_response,
    is_settled,
)
from tests.support.edge import RunningEdge, edge
from tests.support.matrix.clients import CLIENTS, exchange
from tests.support.matrix.origins import http1
from tests.support.matrix.spec import CASES as EXCHANGES
from tests.support.matrix.spec import PIECE, Arrivals, Case, Got, Seen
from tests.support.origins import eventually, origin
from tests.support.peers import free_port


@dataclass
class Filtered:
    """A request to a route with filters, and what both ends must see."""

    filters: str
    """Of the route."""
    got: Callable[[Got], bool]
    seen: Callable[[Seen], bool] | None = None
    """None: the request does not reach the origin."""
    upstream: str = "app"
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
    "rewrite_location": Filtered(
        '{ rewrite = { strip_prefix = "/rewrite_location" } }, '
        '{ headers = { request = { set = { host = "in.test" } } } }, { rewrite_location = {} }',
        lambda got: (
            got.status == 302
            and got.values(b"location") == [b"/rewrite_location/login?x=1"]
            and got.values(b"refresh") == [b"5; url=/rewrite_location/"]
        ),
        lambda seen: seen.target == b"/page",
        path=b"/page",
        case=Case(
            "answer",
            status=302,
            response_fields=[
                (b"location", b"http://in.test/login?x=1"),
                (b"refresh", b"5; url=http://IN.test:80"),
            ],
        ),
    ),
    "rewrite_cookies": Filtered(
        "{ rewrite_cookies = { domain = { 'in.test' = '!' }, path = { '/app' = '/' }, "
        "flags = { '*' = ['secure', 'samesite=lax'] } } }",
        lambda got: (
            got.values(b"set-cookie")
            == [
                b"a=1; Path=/; Secure; SameSite=Lax",
                b"b=2; HttpOnly; SameSite=Lax; Path=/x; Secure",
            ]
        ),
        lambda seen: True,
        case=Case(
            "answer",
            response_fields=[
                (b"set-cookie", b"a=1; Domain=in.test; Path=/app"),
                (b"set-cookie", b"b=2; HttpOnly; SameSite=None; Path=/app/x"),
            ],
        ),
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


HASH = "$2b$04$/5nR9sZHRAsasGCeOeG1HeCox9SN7sVGVTbxDd0wsJyfBZSR99LS2"
"""Of the password `secret`, at the lowest cost."""

CASES |= {
    "compress": Filtered(
        "{ compress = { encodings = ['gzip'] } }",
        lambda got: (
            got.values(b"content-encoding") == [b"gzip"]
            and zlib.decompress(bytes(got.body), 31) == PIECE * 2
        ),
        lambda seen: True,
        fields=[(b"accept-encoding", b"gzip")],
        case=Case(
            "answer", response=(PIECE, PIECE), response_fields=[(b"content-type", b"text/plain")]
        ),
    ),
    "access": Filtered("{ access = { deny = ['127.0.0.1'] } }", lambda got: got.status == 403),
    "access/upload": Filtered(
        "{ access = { deny = ['127.0.0.1'] } }",
        lambda got: got.status == 403,
        case=Case("answer", method=b"POST", body=(PIECE,) * 3),
    ),
    "cors": Filtered(
        "{ cors = { origins = ['https://app.test'] } }",
        lambda got: got.values(b"access-control-allow-origin") == [b"https://app.test"],
        lambda seen: True,
        fields=[(b"origin", b"https://app.test")],
    ),
    "security_headers": Filtered(
        "{ security_headers = {} }",
        lambda got: got.values(b"x-content-type-options") == [b"nosniff"],
        lambda seen: True,
    ),
    "basic_auth": Filtered(
        f"{{ basic_auth = {{ users = {{ ann = '{HASH}' }}, user_header = 'x-user' }} }}",
        lambda got: bytes(got.body) == b"hello",
        lambda seen: seen.values(b"x-user") == [b"ann"] and bytes(seen.body) == PIECE,
        fields=[(b"authorization", b"Basic YW5uOnNlY3JldA==")],
        case=Case("answer", method=b"POST", body=(PIECE,)),
    ),
    "basic_auth/wrong": Filtered(
        f"{{ basic_auth = {{ users = {{ ann = '{HASH}' }} }} }}",
        lambda got: got.status == 401,
        fields=[(b"authorization", b"Basic YW5uOndyb25n")],
    ),
    "forward_auth": Filtered(
        "{ forward_auth = { upstream = 'gone' } }", lambda got: got.status == 502
    ),
    "error_pages": Filtered(
        "{ error_pages = { pages = { 4xx = 'page.html' }, origin = true } }",
        lambda got: (got.status, bytes(got.body)) == (404, b"<p>nothing here"),
        lambda seen: True,
        case=Case("answer", status=404),
    ),
    "buffer": Filtered(
        "{ buffer = { request = true, response = true, memory = 1000 } }",
        lambda got: bytes(got.body) == PIECE * 3,
        lambda seen: (
            bytes(seen.body) == PIECE * 3 and seen.values(b"content-length") == [b"196608"]
        ),
        case=Case(
            "answer",
            method=b"POST",
            body=(PIECE, PIECE, PIECE),
            declared=False,
            expects_continue=True,
            response=(PIECE, PIECE, PIECE),
        ),
    ),
    "site": Filtered(
        "{ rewrite = { strip_prefix = '/site' } }",
        lambda got: (
            (got.status, bytes(got.body)) == (200, b"as brotli")
            and got.values(b"content-encoding") == [b"br"]
            and got.values(b"cache-control") == [b"no-cache"]
        ),
        upstream="site",
        path=b"/about",
        fields=[(b"accept-encoding", b"br")],
    ),
    "site/moved": Filtered(
        "{ rewrite = { strip_prefix = '/site/moved' } }",
        lambda got: got.status == 301 and got.values(b"location") == [b"/site/moved/about?x=1"],
        upstream="site",
        path=b"/about.html?x=1",
    ),
    "site/directory": Filtered(
        "{ rewrite = { strip_prefix = '/site/directory' } }",
        lambda got: got.status == 301 and got.values(b"location") == [b"/site/directory/docs/?x"],
        upstream="site",
        path=b"/docs?x",
    ),
    "site/added": Filtered(
        "{ rewrite = { strip_prefix = '/site/added', add_prefix = '/docs' } }",
        lambda got: got.status == 301 and got.values(b"location") == [b"/site/added/more/"],
        upstream="site",
        path=b"/more",
    ),
    "mirror": Filtered(
        "{ mirror = { upstream = 'gone', methods = ['POST'] } }",
        lambda got: bytes(got.body) == b"hello",
        lambda seen: bytes(seen.body) == PIECE * 2,
        case=Case("answer", method=b"POST", body=(PIECE, PIECE)),
    ),
    "maintenance": Filtered(
        "{ maintenance = { page = 'page.html' } }",
        lambda got: (got.status, bytes(got.body)) == (503, b"<p>nothing here"),
    ),
}


ALL = (
    "{ headers = { request = { set = { x-a = '{client.ip}' } }, response = { add = { x-b = '1' } "
    "} } }, { forward_auth = { upstream = 'auth', request_headers = [] } }, "
    "{ buffer = { response = true, max_size = 131072 } }"
)
"""Filters that leave exchanges as they are, with phases that take time, and a body stage."""


class Setting:
    def __init__(self, running: RunningEdge, port: int, auth_port: int) -> None:
        self.edge = running
        self.origin_port = port
        self.auth_port = auth_port


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    port, auth_port = free_port(), free_port()
    routes = ""
    for name, case in CASES.items():
        answers = case.filters.startswith(("{ redirect", "{ respond"))
        upstream = "" if answers else f'upstream = "{case.upstream}"\n'
        routes += f'\n[[routes]]\npath = "/{name}"\n{upstream}filters = [{case.filters}]\n'
    routes += f'[upstreams.auth]\nservers = ["http://127.0.0.1:{auth_port}"]\n'
    routes += f'[upstreams.gone]\nservers = ["http://127.0.0.1:{free_port()}"]\n'
    routes += f'[[routes]]\npath = "/all"\nmax_body = {MAX_BODY}\nupstream = "app"\n'
    routes += f"filters = [{ALL}]\n"
    routes += '[[routes]]\npath = "/early_hints"\nupstream = "app"\n'
    routes += "filters = [{ early_hints = {} }]\n"
    directory = tmp_path_factory.mktemp("filters")
    routes += '[upstreams.site]\nroot = "www"\nclean_urls = true\nprecompressed = ["br"]\n'
    routes += 'cache_control = { "*.html" = "no-cache" }\n'
    (directory / "www" / "docs" / "more").mkdir(parents=True)
    (directory / "www" / "about.html").write_text("about us")
    (directory / "www" / "about.html.br").write_text("as brotli")
    (directory / "page.html").write_text("<p>nothing here")
    with edge(directory, f"http://127.0.0.1:{port}", routes) as running:
        yield Setting(running, port, auth_port)


@pytest.mark.parametrize("case", EXCHANGES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("version", CLIENTS)
async def test_an_exchange_is_the_same_through_filters(
    setting: Setting, version: str, case: Case
) -> None:
    """Those of the version matrix: faults of both ends, trailers, interim responses, and so on."""
    arrivals, permission = Arrivals(), http1(Case("yes", status=204), Arrivals())
    async with (
        origin(permission, port=setting.auth_port),
        origin(http1(case, arrivals), port=setting.origin_port),
    ):
        got = await exchange(version, setting.edge.port, case, b"/all/x", arrivals)
        if case.client.wants_the_response:
            check_response(case, got)
        if case.reaches_the_origin:
            await eventually(lambda: is_settled(case, arrivals.requests))
            for request in arrivals.requests:
                check_request(case, b"/all/x", request)
        else:
            assert not any(request.complete for request in arrivals.requests)


@pytest.mark.parametrize("version", CLIENTS)
async def test_early_hints_are_sent_from_the_second_time_on(setting: Setting, version: str) -> None:
    path = f"/early_hints/{version}".encode()
    case = Case(
        "answer",
        fields=[(b"sec-fetch-mode", b"navigate")],
        response_fields=[(b"link", b"</app.css>; rel=preload; as=style")],
    )
    async with origin(http1(case, arrivals := Arrivals()), port=setting.origin_port):
        first = await exchange(version, setting.edge.port, case, path, arrivals)
        again = await exchange(version, setting.edge.port, case, path, arrivals)
    assert (first.status, first.interim) == (200, [])
    assert (again.status, bytes(again.body)) == (200, b"hello")
    assert again.interim == ([] if version == "http/1.1" else [103])


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
        got = await exchange(version, setting.edge.port, case, path, arrivals)
    assert got.complete, got
    assert filtered.got(got), got
    if filtered.seen is None:
        assert not arrivals.requests
    else:
        (request,) = arrivals.requests
        assert filtered.seen(request), request


async def test_filters_change_with_the_configuration_or_not_at_all(tmp_path: Path) -> None:
    redirect = '[[routes]]\npath = "/go"\nfilters = [{ redirect = { to = "/one" } }]\n'
    with edge(tmp_path, f"http://127.0.0.1:{free_port()}", redirect) as running:
        config = tmp_path / "quicedge.toml"
        first = config.read_text()

        async def location() -> list[bytes]:
            got = await exchange("h2", running.port, Case("go"), b"/go", Arrivals())
            return got.values(b"location")

        assert await location() == [b"/one"]
        config.write_text(first.replace("/one", "/two"))
        running.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            while await location() != [b"/two"]:
                await asyncio.sleep(0.05)
        config.write_text(
            first.replace("/one", "/three")
            + '[[routes]]\npath = "/a"\nupstream = "app"\n'
            + "filters = [{ basic_auth = { htpasswd = 'absent' } }]\n"
        )
        running.process.send_signal(signal.SIGHUP)
        await eventually(lambda: "configuration unchanged" in running.log())
        assert "routes[2].filters[0].basic_auth.htpasswd" in running.log()
        assert await location() == [b"/two"]
