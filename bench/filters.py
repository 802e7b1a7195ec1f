"""`make bench ARGS=filters`: what each filter of a route costs, in memory.

A gateway stands between a client and an origin that do nothing: no sockets, no TLS, no frames. The
cost of a filter is the CPU time of an exchange with it, less that of one without. The orders are
mixed and repeated, the lowest figure of each counts: all that can be added to it is noise.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench import report
from bench.proxies import ROOT
from bench.python_build import Build
from quicedge.config.schema import CircuitBreaker, Config, Hedge
from quicedge.filters import Context, Filter, Request
from quicedge.http.message import Field, Response
from quicedge.upstream.base import ResponseHandler
from tests.support.attempts import AnsweredUpstream
from tests.support.filtered import World, config_of

EXCHANGES = 3000
ROUNDS = 9
BEGIN, END = "<!-- filters: begin -->", "<!-- filters: end -->"

SMALL = b"<p>Some text, as pages have it, again and again.</p>\n" * 20
"""1 KB."""
LARGE = SMALL * 60
"""60 KB."""
REQUEST: list[Field] = [
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"), (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, br, zstd"), (b"origin", b"https://app.example.com"),
    (b"cookie", b"session=0123456789abcdef; place=0042"),
    # Of `users`, remembered after the first time.
    (b"authorization", b"Basic YW5uOnNlY3JldA=="),
]  # fmt: skip
RESPONSE: list[Field] = [
    (b"content-type", b"text/html; charset=utf-8"), (b"server", b"origin"),
    (b"etag", b'"0123456789"'), (b"cache-control", b"max-age=60"),
    (b"date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
]  # fmt: skip
REDIRECT: list[Field] = [
    (b"location", b"http://127.0.0.1:1/login?next=%2F"),
    (b"set-cookie", b"session=0123456789abcdef; Path=/; HttpOnly"),
    (b"set-cookie", b"theme=dark; Domain=127.0.0.1; Path=/"),
]
HASH = "$2b$04$/5nR9sZHRAsasGCeOeG1HeCox9SN7sVGVTbxDd0wsJyfBZSR99LS2"


class NameUser(Filter):
    """Sets a field of requests."""

    def on_request(self, request: Request, context: Context) -> None:
        request.headers["x-user"] = "ann"


class NameUserLater(Filter):
    """The same in a coroutine."""

    async def on_request(self, request: Request, context: Context) -> None:
        request.headers["x-user"] = "ann"


@dataclass(frozen=True)
class Subject:
    """A filter with its settings, and what passes it."""

    title: str
    filters: str
    body: bytes = SMALL
    route: str = ""
    """Further keys of the route."""
    others: int = 0
    """Routes of the same host beside it."""
    redirects: bool = False
    """Whether the origin redirects to its own address, and sets two cookies."""
    upstream: dict[str, Any] | None = field(default=None, hash=False)
    """Settings of an upstream with two servers, whose connections are not real; None: the whole
    upstream is not."""


SPLIT = "split = { shares = { app = 95, canary = 5 }, %s }"
HEDGE = {"hedge": Hedge(after="p95")}
BREAKER = {"circuit_breaker": CircuitBreaker()}

SUBJECTS = (
    Subject("no filter", ""),
    Subject("no filter, 60 KB", "", LARGE),
    Subject("one of 10 routes", "", others=9),
    Subject("one of 10 000 routes", "", others=9999),
    Subject("a route with conditions", "", route="methods = ['GET']\nheaders = { accept = '*' }"),
    Subject("a route by regular expression", "", route="path_regex = '^/a/.*/[a-z]+$'"),
    Subject("`split` by client", "", route=SPLIT % 'by = "client"'),
    Subject("`split` by turns", "", route=SPLIT % 'by = "request"'),
    Subject("`split`, a client with its cookie", "", route=SPLIT % 'sticky_cookie = "place"'),
    Subject("an upstream", "", upstream={}),
    Subject("an upstream with `circuit_breaker`", "", upstream=BREAKER),
    Subject("an upstream with `hedge`", "", upstream=HEDGE),
    Subject("an upstream with both", "", upstream=HEDGE | BREAKER),
    Subject("`redirect`", "{ redirect = { to = 'https://b.example.com{uri}' } }"),
    Subject("`respond`", "{ respond = { body = 'hello {client.ip}' } }"),
    Subject("`rewrite`, prefix", "{ rewrite = { strip_prefix = '/a', add_prefix = '/b' } }"),
    Subject(
        "`rewrite`, regular expression",
        r"{ rewrite = { pattern = '^/a/(.*)$', replacement = '/b/\1' } }",
    ),
    Subject("`rewrite_location`, no redirect", "{ rewrite_location = {} }"),
    Subject("`rewrite_location`, a redirect", "{ rewrite_location = {} }", redirects=True),
    Subject("`rewrite_cookies`, no cookie", "{ rewrite_cookies = {} }"),
    Subject(
        "`rewrite_cookies`, two cookies",
        "{ rewrite_cookies = { flags = { '*' = ['secure'] } } }",
        redirects=True,
    ),
    Subject(
        "`headers`, three fixed fields",
        "{ headers = { response = { remove = ['server'], set = { x-a = '1', x-b = '2' } } } }",
    ),
    Subject(
        "`headers`, two placeholders",
        "{ headers = { request = { set = { x-a = '{client.ip}', x-b = '{header.cookie}' } } } }",
    ),
    Subject("`access`", "{ access = { allow = ['192.0.2.0/24', '10.0.0.0/8'] } }"),
    Subject("`cors`", "{ cors = { origins = ['https://app.example.com'] } }"),
    Subject("`security_headers`", "{ security_headers = {} }"),
    Subject("`basic_auth`, remembered", f"{{ basic_auth = {{ users = {{ ann = '{HASH}' }} }} }}"),
    Subject("`forward_auth`", "{ forward_auth = { upstream = 'app', copy_headers = ['x-user'] } }"),
    Subject("`maintenance`, off", "{ maintenance = { while_exists = 'no-such-file' } }"),
    Subject("`error_pages`", "{ error_pages = { pages = { 404 = 'Makefile' } } }"),
    Subject("`early_hints`", "{ early_hints = {} }"),
    Subject("`buffer`, response", "{ buffer = { response = true } }"),
    Subject("`mirror`", "{ mirror = { upstream = 'app' } }"),
    Subject("`python`, a field", "{ python = 'bench.filters:NameUser' }"),
    Subject("`python`, a coroutine", "{ python = 'bench.filters:NameUserLater' }"),
    Subject("`compress`, zstd", "{ compress = { encodings = ['zstd'] } }"),
    Subject("`compress`, br", "{ compress = { encodings = ['br'] } }"),
    Subject("`compress`, gzip", "{ compress = { encodings = ['gzip'] } }"),
    Subject("`compress`, zstd, 60 KB", "{ compress = { encodings = ['zstd'] } }", LARGE),
    Subject("`compress`, br, 60 KB", "{ compress = { encodings = ['br'] } }", LARGE),
    Subject("`compress`, gzip, 60 KB", "{ compress = { encodings = ['gzip'] } }", LARGE),
)


def _config(subject: Subject) -> Config:
    answers = any(kind in subject.filters for kind in ("redirect", "respond"))
    upstream = "" if answers or "split" in subject.route else "upstream = 'app'\n"
    others = "".join(
        f"[[routes]]\npath = '/service/{number}'\nupstream = 'app'\n"
        for number in range(subject.others)
    )
    return config_of(
        "[upstreams.canary]\nservers = ['http://127.0.0.1:2']\n"
        f"[[routes]]\n{upstream}{subject.route}\nfilters = [{subject.filters}]\n{others}",
        ROOT,
    )


async def _measure(subject: Subject, config: Config, exchanges: int) -> float:
    """CPU microseconds per exchange."""
    servers: AnsweredUpstream | None = None
    if subject.upstream is not None:
        servers = AnsweredUpstream(**subject.upstream)
    world = World(config=config, upstream=servers and servers.group)
    more = REDIRECT if subject.redirects else []
    head = [*RESPONSE, *more, (b"content-length", b"%d" % len(subject.body))]

    asked: list[ResponseHandler] = []

    def open_stream(request: object, handler: ResponseHandler, *_: object) -> object:
        asked.append(handler)
        return world.origin

    world.origin.open = open_stream  # type: ignore[method-assign]

    async def exchange() -> None:
        client = world.send(b"/a/page/index?x=1", *REQUEST)
        if servers is not None:
            stream = servers.sent.pop().stream
            stream.response(Response(200, list(head), b"1.1"))
            stream.data(subject.body)
            stream.end_of_response(())
            servers.loop.advance(0.001)
        while asked or not client.ended:
            if not asked:
                await asyncio.sleep(0)  # a password, or a filter that takes time
                continue
            handler = asked.pop()
            handler.response(Response(200, list(head), b"1.1"))
            handler.data(subject.body)
            handler.end(())
        assert client.status in (200, 302), client.status
        if client.exchange is not None:
            client.exchange.delivered()
        client.exchange = None
        world.log.records.clear()

    for _ in range(20):
        await exchange()
    started = time.process_time()
    for _ in range(exchanges):
        await exchange()
    return (time.process_time() - started) / exchanges * 1e6


def measure(
    subjects: Sequence[Subject] = SUBJECTS, rounds: int = ROUNDS, exchanges: int = EXCHANGES
) -> dict[Subject, float]:
    """The lowest figure of each subject, in microseconds per exchange."""
    figures: dict[Subject, float] = {}
    configs = {subject: _config(subject) for subject in subjects}
    gc.disable()
    for _ in range(rounds):
        for subject in random.sample(subjects, len(subjects)):
            taken = asyncio.run(_measure(subject, configs[subject], exchanges))
            figures[subject] = min(taken, figures.get(subject, taken))
    gc.enable()
    return figures


def markdown(figures: dict[Subject, float], build: Build) -> str:
    """The table of RESULTS.md."""
    bare = {_basis(subject): cost for subject, cost in figures.items() if _is_bare(subject)}
    lines = [
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `make bench ARGS=filters` on {build}:"
        " CPU time of an exchange in memory, and what of it is the filter's; the lowest of"
        f" {ROUNDS} rounds. Responses have 1 KB where nothing is said.",
        "",
        *report.table_head("route", "exchange, us", "filter, us"),
    ]
    for subject, cost in figures.items():
        own = "-" if _is_bare(subject) else f"{cost - bare[_basis(subject)]:.1f}"
        lines.append(report.table_row(subject.title, f"{cost:.1f}", own))
    return "\n".join(lines) + "\n"


def _is_bare(subject: Subject) -> bool:
    return not (subject.filters or subject.route or subject.others or subject.upstream)


def _basis(subject: Subject) -> tuple[bytes, bool]:
    """What subjects have in common whose figures may be compared."""
    return subject.body, subject.upstream is not None


def main(build: Build, *, write: bool) -> None:
    """Measure, print, and replace the section in RESULTS.md."""
    figures = measure()
    ordered = {subject: figures[subject] for subject in SUBJECTS}
    text = markdown(ordered, build)
    print(text)
    if write:
        report.replace_section(ROOT / "bench" / "RESULTS.md", BEGIN, END, text)
