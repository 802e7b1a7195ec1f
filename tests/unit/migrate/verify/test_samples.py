"""The requests that are made from a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.nginx.source import read
from quicedge.migrate.verify.addresses import Listeners, Ports
from quicedge.migrate.verify.limits import BURST, MAX_SAMPLES
from quicedge.migrate.verify.message import Protocol, Sample, value_of
from quicedge.migrate.verify.sample_list import Made
from quicedge.migrate.verify.samples import make_samples

TEXT = """
events {}
http {
    map $cookie_release $backend {
        next canary;
        ~^old stable;
        default stable;
    }
    map $uri $unused {
        /never 1;
    }
    server {
        listen 80;
        server_name plain.example.com;
        return 301 https://$host$request_uri;
    }
    server {
        listen 8443 ssl http2;
        server_name a.example.com *.b.example.com ~^(\\d+)\\.c\\.example\\.com$;
        rewrite ^/users/(\\d+)$ /show last;
        if ($request_method = PURGE) { return 405; }
        if ($http_x_debug) { return 418; }
        location /app/ {
            proxy_pass http://$backend;
            client_max_body_size 10;
            location /app/secret/ {
                auth_basic "secret";
                auth_basic_user_file users;
                proxy_pass http://stable;
            }
        }
        location ~* \\.(gif|png)$ { return 204; }
        location /odd { limit_req zone=one; allow 10.0.0.0/8; return 204; }
        location /rpc/ { grpc_pass grpc://stable; }
        location ~ "(" { return 204; }
    }
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    return made_from(tmp_path_factory.mktemp("samples") / "nginx.conf", TEXT)


def made_from(path: Path, text: str) -> Made:
    path.write_text(text)
    http = next(one for one in read(path).top if one.name == "http")
    ports = Ports()
    try:
        return make_samples(http, Listeners(ports))
    finally:
        ports.close()


def urls(made: Made) -> set[str]:
    return {sample.url for sample in made.samples}


A = "https://a.example.com:8443"


@pytest.mark.parametrize(
    "url",
    [
        "http://plain.example.com/",
        "http://nobody.invalid/sample?a=1",
        f"{A}/",
        "https://sample.b.example.com:8443/",
        "https://1.c.example.com:8443/",
        f"{A}/app/", f"{A}/app", f"{A}/appsample", f"{A}/app/sample", f"{A}/app/a%2Fb",
        f"{A}/app/./x/../sample", f"{A}/app/secret/sample", f"{A}/sample.gif", f"{A}/SAMPLE.GIF",
        f"{A}/users/1", f"{A}/users/1?x=1",
    ],
)  # fmt: skip
def test_every_server_and_location_is_asked(made, url):
    assert url in urls(made)


def having(made: Made, name: str) -> list[Sample]:
    return [sample for sample in made.samples if value_of(sample.headers, name) is not None]


def test_conditions_and_maps_are_met(made):
    assert any(sample.method == "PURGE" for sample in made.samples)
    assert having(made, "x-debug")
    cookies = {value_of(sample.headers, "cookie") for sample in having(made, "cookie")}
    assert {"release=next", "release=old"} <= cookies
    assert f"{A}/never" not in urls(made)


def test_what_is_configured_for_a_location_is_asked_for(made):
    secret = [s.url for s in having(made, "authorization")]
    assert secret == [f"{A}/app/secret/"] * 3
    assert [s.url for s in made.samples if s.burst == BURST] == [f"{A}/odd"]
    assert f"{A}/odd" in [s.url for s in made.samples if s.source == "127.0.0.1"]
    assert {len(s.body) for s in made.samples if s.url == f"{A}/app/secret/"} >= {10, 11}
    assert f"{A}/app/" in [s.url for s in having(made, "upgrade")]
    grpc = [s for s in made.samples if value_of(s.headers, "content-type") == "application/grpc"]
    assert [(s.method, s.protocol) for s in grpc] == [("POST", Protocol.H2)]


def test_http2_is_spoken_where_it_is_offered(made):
    over_h2 = {sample.url.partition("?")[0] for sample in made.samples
               if sample.protocol is Protocol.H2}  # fmt: skip
    assert f"{A}/app/" in over_h2
    assert not any(url.startswith("http://plain") for url in over_h2)


def test_what_no_request_was_made_for_is_told(made):
    assert len(made.notes) == 1
    assert "no request was made for location ~ (" in made.notes[0]


def test_http2_without_tls_is_not_played_and_told(tmp_path):
    text = "events {} http { server { listen 8080 http2; server_name a.example.com; return 204; } }"
    made = made_from(tmp_path / "nginx.conf", text)
    assert not made.samples
    assert made.notes == ["listen 8080: HTTP/2 without TLS is not played"]


@pytest.mark.parametrize("verify", ["on", "optional", "off"])
def test_where_certificates_are_asked_for_some_requests_show_none(tmp_path, verify):
    server = f"server {{ listen 443 ssl; ssl_verify_client {verify}; return 204; }}"
    made = made_from(tmp_path / "nginx.conf", f"events {{}} http {{ {server} }}")
    assert made.notes == []
    shown = {sample.url for sample in made.samples if sample.shows_certificate}
    without = {sample.url for sample in made.samples if not sample.shows_certificate}
    assert shown
    assert without == ({url for url in shown if "over=h2" not in url} if verify != "off" else set())


def test_no_request_is_made_twice(made):
    assert len({repr(sample) for sample in made.samples}) == len(made.samples)


def test_requests_beyond_the_bound_are_told():
    samples = [Sample("GET", f"https://a.example.com/{n}") for n in range(MAX_SAMPLES + 1)]
    assert Made.of(samples[1:]).notes == []
    made = Made.of(samples)
    assert made.samples == samples[:-1]
    assert made.notes == [f"{MAX_SAMPLES + 1} requests were made; {MAX_SAMPLES} are played"]
