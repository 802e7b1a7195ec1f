"""`quicedge check --explain`: the way of one request through the routes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli import main

CONFIG = """
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[filters]]
headers.response.remove = ["server"]
[[routes]]
host = "a.test"
upstream = "app"
[[routes]]
host = "a.test"
path = "/api"
headers = { x-beta = "1" }
clients = ["10.0.0.0/8"]
upstream = "app"
filters = [{ rewrite = { strip_prefix = "/api" } }]
[[routes]]
host = "old.test"
filters = [{ redirect = { to = "https://a.test{uri}" } }]
"""


def explain(
    directory: Path, request: str, *options: str, text: str = CONFIG
) -> tuple[int, list[str]]:
    (directory / "quicedge.toml").write_text(text)
    arguments = ["check", "--config", str(directory / "quicedge.toml"), "--explain", request]
    result = CliRunner().invoke(main, [*arguments, *options])
    return result.exit_code, result.output.splitlines()


def test_each_route_that_was_tried_says_why_it_was_not_taken(tmp_path: Path) -> None:
    code, lines = explain(tmp_path, "GET https://a.test/api/x")
    assert code == 0
    assert lines == [
        "GET https://a.test/api/x",
        "  routes[1] at a.test/api: no, not met: header x-beta = 1",
        "  routes[0] at a.test/: taken",
        "  filter headers (filters[0])",
        "  upstream app (http://127.0.0.1:8000)",
    ]


def test_headers_and_client_can_be_given(tmp_path: Path) -> None:
    options = ["-H", "X-Beta: 1", "--client", "10.1.2.3", "--protocol", "h2"]
    code, lines = explain(tmp_path, "POST https://a.test/x/../%61pi", *options)
    assert code == 0
    assert lines[1:] == [
        "  routed as /api",
        "  routes[1] at a.test/api: taken, as met: header x-beta = 1; client in 10.0.0.0/8",
        "  filter headers (filters[0])",
        "  filter rewrite (route's filters[0])",
        "  asked for as a.test/",
        "  upstream app (http://127.0.0.1:8000)",
    ]


def test_a_request_without_an_upstream_or_a_route_says_so(tmp_path: Path) -> None:
    code, lines = explain(tmp_path, "https://old.test/x")
    assert (code, lines[0], lines[-1]) == (
        0, "GET https://old.test/x", "  answered by the last filter",
    )  # fmt: skip
    code, lines = explain(tmp_path, "https://c.test/")
    assert (code, lines[-1]) == (1, "  no route: answered 404")
    code, lines = explain(tmp_path, "https://a.test/x/..%2fapi")
    assert (code, lines[-1]) == (
        1, "  answered 400: servers disagree about the dot segments of the path",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "options", "message"),
    [
        ("http://a.test/", [], "write 'GET https://host/path'"),
        ("G(T https://a.test/", [], "is not a method"),
        ("https://a.test/", ["-H", "nonsense"], "is not NAME: VALUE"),
        ("https://a.test/", ["--client", "localhost"], "is not an IP address"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    tmp_path: Path, request_: str, options: list[str], message: str
) -> None:
    code, lines = explain(tmp_path, request_, *options)
    assert code == 2
    assert message in " ".join(lines)


def test_shares_are_shown_and_the_upstream_where_it_is_known(tmp_path: Path) -> None:
    text = CONFIG + (
        '[upstreams.canary]\nservers = ["http://127.0.0.1:9000"]\n'
        '[[routes]]\nhost = "s.test"\nsplit = { shares = { app = 95, canary = 5 } }\n'
    )
    code, lines = explain(tmp_path, "https://s.test/", text=text)
    assert code == 0
    assert lines[-3:] == [
        "  split by client: app 95 %, canary 5 %",
        "  upstream app (http://127.0.0.1:8000)",
        "  upstream canary (http://127.0.0.1:9000)",
    ]
    upstreams = set()
    for number in range(60):
        _, lines = explain(tmp_path, "https://s.test/", "--client", f"10.0.0.{number}", text=text)
        assert lines[-2] == "  split by client: app 95 %, canary 5 %"
        upstreams.add(lines[-1].split()[1])
    assert upstreams == {"app", "canary"}
