"""`proxy_pass` and its kind, and what belongs to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")

HOST = "proxy_set_header Host $host; proxy_redirect off;"


def proxy(tmp_path: Path, text: str, *, http: str = "") -> Migrated:
    return Migrated(tmp_path, site(text, http=http))


@pytest.mark.parametrize(
    ("location", "target", "rewrite"),
    [
        ("/", "http://b:1", None),
        ("/a/", "http://b:1", None),
        ("/a/", "http://b:1/a/", None),
        ("/a/", "http://b:1/", {"strip_prefix": "/a"}),
        ("/a/", "http://b:1/x/", {"strip_prefix": "/a", "add_prefix": "/x"}),
        ("/", "http://b:1/x/", {"add_prefix": "/x"}),
        ("/a", "http://b:1/x", {"pattern": "^/a", "replacement": "/x"}),
        ("/a", "http://b:1/", {"pattern": "^/a/*", "replacement": "/"}),
        ("/a/", "http://b:1/x", {"pattern": "^/a/", "replacement": "/x"}),
        ("= /a", "http://b:1/x", {"path": "/x"}),
        ("= /a", "http://b:1/x?y=1", {"path": "/x?y=1"}),
        ("/a/", "http://b:1$request_uri", None),
        ("/a/", "http://b:1/x$uri", {"path": "/x{path}", "query": "drop"}),
        ("/a/", "http://b:1/x$uri$is_args$args", {"path": "/x{path}"}),
        ("~ ^/a/(.*)$", "http://b:1/x/$1", {"path": "/x/{match.1}", "query": "drop"}),
    ],
)
def test_the_target_that_origins_are_asked_for(
    tmp_path: Path, location: str, target: str, rewrite: dict[str, Any] | None
) -> None:
    found = proxy(tmp_path, f"location {location} {{ proxy_pass {target}; {HOST} }}")
    path = "/a" if location in ("= /a", "/a") else "/a/x"
    assert found.filters(path) == ([] if rewrite is None else [{"rewrite": rewrite}])
    assert found.upstream(path) == {"servers": ["http://b:1"]}


def test_a_prefix_that_is_passed_on_is_redirected_to_as_nginx_does(tmp_path: Path) -> None:
    found = proxy(tmp_path, "location /a/ { proxy_pass http://b; } location /b/ { root /srv; }")
    assert found.answer("/a") == {"to": "/a/{?query}", "status": 301}
    assert found.answer("/b")["status"] == 404


def test_the_host_of_the_origin_is_sent_unless_it_is_set(tmp_path: Path) -> None:
    text = """
    proxy_redirect off;
    location /default/ { proxy_pass http://127.0.0.1:8000; }
    location /port/ { proxy_pass http://origin.test:80; }
    location /host/ { proxy_pass http://b; proxy_set_header Host $host; }
    location /http-host/ { proxy_pass http://b; proxy_set_header Host $http_host; }
    location /name/ { proxy_pass http://b; proxy_set_header Host fixed.test; }
    location /proxy/ { proxy_pass http://b; proxy_set_header Host $proxy_host; }
    location /server/ { proxy_pass http://b; proxy_set_header Host $server_name:$server_port; }
    location /unix/ { proxy_pass http://unix:/run/app.sock; }
    """
    found = proxy(tmp_path, text)

    def host(path: str) -> str | None:
        for item in found.filters(path):
            rules = item["headers"]["request"]["set"]
            return str(rules["host"])
        return None

    assert host("/default/x") == "127.0.0.1:8000"
    assert host("/port/x") == "origin.test"
    assert host("/host/x") is None
    assert host("/http-host/x") is None
    assert host("/name/x") == "fixed.test"
    assert host("/proxy/x") == "b"
    assert host("/server/x") == "a.test:443"
    assert host("/unix/x") == "localhost"
    assert found.upstream("/unix/x") == {"servers": ["unix:/run/app.sock"]}


def test_fields_for_origins(tmp_path: Path) -> None:
    text = """
    proxy_redirect off;
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Agent "agent $http_user_agent; {$cookie_a}";
    proxy_set_header Accept-Encoding "";
    proxy_set_header Proxy "";
    proxy_set_header X-Time $msec;
    proxy_set_header Connection "";
    proxy_set_header Content-Length "";
    location / { proxy_pass http://b; }
    """
    found = proxy(tmp_path, text)
    rules = {
        "remove": ["accept-encoding"],
        "set": {
            "x-real-ip": "{client.ip}",
            "x-forwarded-port": "443",
            "x-agent": "agent {header.user-agent}; {{{cookie.a}}}",
        },
    }
    assert found.filters("/") == [{"headers": {"request": rules}}]
    assert found.status("proxy_set_header X-Forwarded-Proto") is Status.TRANSLATED
    assert found.status("proxy_set_header X-Forwarded-For") is Status.DIFFERENT
    assert found.status("proxy_set_header X-Time") is Status.LEFT_OUT
    assert found.status("proxy_set_header Content-Length") is Status.TRANSLATED


def test_fields_are_inherited_only_where_there_are_none(tmp_path: Path) -> None:
    text = """
    proxy_set_header X-A a; proxy_set_header Host $host; proxy_redirect off;
    location /own/ { proxy_pass http://b; proxy_set_header Host $host; proxy_set_header X-B b; }
    location / { proxy_pass http://b; }
    """
    found = proxy(tmp_path, text)
    assert found.filters("/own/x") == [{"headers": {"request": {"set": {"x-b": "b"}}}}]
    assert found.filters("/") == [{"headers": {"request": {"set": {"x-a": "a"}}}}]


def test_websockets_only_where_nginx_forwards_them(tmp_path: Path) -> None:
    http = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"
    text = f"""
    location /ws/ {{
      proxy_pass http://b; {HOST} proxy_http_version 1.1; proxy_read_timeout 1d;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
    location / {{ proxy_pass http://b; {HOST} }}
    """
    found = proxy(tmp_path, text, http=http)
    assert found.route("/ws/x").upgrade == ["websocket"]
    assert found.route("/ws/x").tunnel_idle_timeout == 86400
    assert found.filters("/ws/x") == []
    assert found.route("/").upgrade == []
    assert found.status("map $http_upgrade") is Status.TRANSLATED
    assert found.status("default upgrade") is Status.TRANSLATED


def test_limits_and_timeouts_of_a_route(tmp_path: Path) -> None:
    text = """
    client_max_body_size 10m;
    location /a/ {
      proxy_pass http://b; client_max_body_size 0; proxy_read_timeout 5m; proxy_connect_timeout 3s;
      proxy_next_upstream off; proxy_send_timeout 10s;
    }
    location /b/ { proxy_pass http://b; proxy_next_upstream_tries 3; }
    """
    found = proxy(tmp_path, text)
    route = found.route("/a/x")
    assert (route.max_body, route.first_byte_timeout, route.idle_timeout) == (None, 300, 300)
    assert route.retries == 0
    assert found.upstream("/a/x") == {"servers": ["http://b"], "connect_timeout": "3s"}
    other = found.route("/b/x")
    assert (other.max_body, other.first_byte_timeout, other.retries) == (10 << 20, None, 2)
    assert found.upstream("/b/x") == {"servers": ["http://b"]}


def test_a_request_has_a_mebibyte_by_default_as_in_nginx(tmp_path: Path) -> None:
    found = proxy(tmp_path, "location / { proxy_pass http://b; }")
    assert found.route("/").max_body == 1 << 20


def test_tls_to_origins_is_verified_only_if_nginx_does(tmp_path: Path) -> None:
    text = """
    location /a/ { proxy_pass https://b; }
    location /b/ {
      proxy_pass https://b; proxy_ssl_verify on; proxy_ssl_trusted_certificate /etc/ca.pem;
      proxy_ssl_name c.test; proxy_ssl_server_name on;
    }
    """
    found = proxy(tmp_path, text)
    assert found.upstream("/a/x") == {"servers": ["https://b"], "tls_verify": False}
    assert found.upstream("/b/x") == {
        "servers": ["https://b"], "tls_ca": "/etc/ca.pem", "tls_server_name": "c.test",
    }  # fmt: skip


def test_grpc_speaks_http_2_to_origins(tmp_path: Path) -> None:
    text = "location /svc/ { grpc_pass grpc://b:50051; grpc_set_header X-A a; } "
    text += "location /tls/ { grpc_pass grpcs://b:50052; grpc_read_timeout 1h; }"
    found = proxy(tmp_path, text)
    assert found.upstream("/svc/x") == {"servers": ["http://b:50051"], "protocol": "h2"}
    assert found.upstream("/tls/x") == {
        "servers": ["https://b:50052"], "protocol": "h2", "tls_verify": False,
    }  # fmt: skip
    rules = found.filters("/svc/x")[0]["headers"]["request"]["set"]
    assert rules == {"host": "b:50051", "x-a": "a"}
    assert found.route("/tls/x").idle_timeout == 3600


def test_buffering_that_is_asked_for(tmp_path: Path) -> None:
    text = f"""
    location /a/ {{ proxy_pass http://b; {HOST} proxy_buffering on; }}
    location /b/ {{ proxy_pass http://b; {HOST} proxy_buffering off; proxy_request_buffering on; }}
    """
    found = proxy(tmp_path, text)
    assert found.filters("/a/x") == [{"buffer": {"response": True}}]
    assert found.filters("/b/x") == [{"buffer": {"request": True}}]


def test_other_protocols_are_answered_501_and_never_served_as_files(tmp_path: Path) -> None:
    text = """
    root /srv/www;
    location ~ \\.php$ { fastcgi_pass unix:/run/php.sock; fastcgi_param A b; }
    location /u/ { uwsgi_pass b:1; }
    location / { try_files $uri /index.php?$args; }
    """
    found = proxy(tmp_path, text)
    assert found.answer("/x.php")["status"] == 501
    assert found.answer("/u/x")["status"] == 501
    assert found.upstream("/x.css")["root"] == "/srv/www"
    assert found.status("fastcgi_pass") is Status.LEFT_OUT
    assert found.status("uwsgi_pass") is Status.LEFT_OUT
    assert found.status("try_files") is Status.DIFFERENT


def test_a_server_that_depends_on_the_request_is_left_out(tmp_path: Path) -> None:
    found = proxy(tmp_path, "location / { proxy_pass http://$http_x_backend; }")
    assert found.answer("/")["status"] == 501
    assert "depends on the request" in found.line("proxy_pass").words


def test_constants_and_maps_choose_the_server(tmp_path: Path) -> None:
    http = "map $cookie_beta $pool { default stable; yes canary; }"
    text = """
    set $backend http://127.0.0.1:8000;
    location /set/ { proxy_pass $backend; }
    location /map/ { proxy_pass http://$pool; }
    """
    found = proxy(tmp_path, text, http=http)
    assert found.upstream("/set/x") == {"servers": ["http://127.0.0.1:8000"]}
    assert found.upstream("/map/x") == {"servers": ["http://stable"]}
    beta = found.upstream("/map/x", fields=[("cookie", "beta=yes")])
    assert beta == {"servers": ["http://canary"]}


def test_clients_are_divided_between_upstreams(tmp_path: Path) -> None:
    http = """
    split_clients "${remote_addr}AAA" $side { 10% canary; 0.5% new; * stable; }
    upstream stable { server 10.0.0.1; }
    """
    found = proxy(tmp_path, f"location / {{ proxy_pass http://$side; {HOST} }}", http=http)
    assert found.keys["routes"][0]["split"] == {
        "shares": {"stable": 89.5, "canary": 10, "new": 0.5}, "seed": "AAA",
    }  # fmt: skip
    assert found.status("split_clients") is Status.DIFFERENT
    assert found.status("10% canary") is Status.TRANSLATED


def test_a_cookie_may_choose_the_side_of_a_client(tmp_path: Path) -> None:
    http = """
    split_clients "${remote_addr}${http_user_agent}" $side { 10% canary; * stable; }
    map $cookie_side $backend { new canary; default $side; }
    upstream stable { server 10.0.0.1; } upstream canary { server 10.0.0.2; }
    """
    text = f"""
    location / {{ proxy_pass http://$backend; {HOST} proxy_set_header X-Side $backend; }}
    location /static/ {{ root /srv; add_header X-Side $backend; }}
    """
    found = Migrated(tmp_path, site(text, http=http))
    assert found.route("/", fields=[("cookie", "side=new")]).upstream == "canary"
    route = found.keys["routes"][-1]
    assert route["split"] == {"shares": {"stable": 90, "canary": 10}}
    assert route["filters"][0]["headers"]["request"]["set"]["x-side"] == "{route.upstream}"
    assert found.filters("/static/") == []
    assert found.status("map") is Status.TRANSLATED


@pytest.mark.parametrize(
    ("directive", "effect"),
    [
        ("proxy_method POST;", Effect(Side.ORIGIN, Aspect.METHOD)),
        ("proxy_pass_request_headers off;", Effect(Side.ORIGIN, Aspect.HEADER)),
        ("proxy_pass_request_body off;", Effect(Side.ORIGIN, Aspect.BODY)),
    ],
)
def test_what_is_done_to_requests_and_cannot_be_said_is_told_where_origins_see_it(
    tmp_path: Path, directive: str, effect: Effect
) -> None:
    found = proxy(tmp_path, f"location / {{ proxy_pass http://b; {directive} }}")
    line = found.line(directive.partition(" ")[0])
    assert (line.status, line.effects) == (Status.LEFT_OUT, (effect,))


def test_copies_of_requests_go_to_the_mirror(tmp_path: Path) -> None:
    text = f"""
    location / {{ proxy_pass http://b; {HOST} mirror /copy; }}
    location = /copy {{ internal; proxy_pass http://test$request_uri; }}
    """
    found = proxy(tmp_path, text)
    assert found.filters("/")[0]["mirror"]["upstream"] == "test"
    assert found.answer("/copy")["status"] == 404
