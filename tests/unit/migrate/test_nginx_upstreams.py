"""`upstream` blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")


def upstream(tmp_path: Path, text: str, *, http: str = "") -> tuple[Migrated, dict[str, Any]]:
    block = f"{http} upstream b {{ {text} }}"
    found = Migrated(tmp_path, site("location / { proxy_pass http://b; }", http=block))
    return found, found.upstream("/")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("server 10.0.0.1:8000;", {"servers": ["http://10.0.0.1:8000"]}),
        ("server unix:/run/a.sock;", {"servers": ["unix:/run/a.sock"]}),
        (
            "server a weight=5; server b backup; server c down;",
            {"servers": [{"url": "http://a", "weight": 5}, {"url": "http://b", "tier": 1}]},
        ),
        (
            "server a max_fails=3 fail_timeout=30s;",
            {"servers": ["http://a"], "outliers": {"failures": 3, "eject_for": "30s"}},
        ),
        ("server a max_fails=0 fail_timeout=30s;", {"servers": ["http://a"]}),
        ("server a fail_timeout=0;", {"servers": ["http://a"]}),
        ("least_conn; server a;", {"servers": ["http://a"], "balance": "least_requests"}),
        ("ip_hash; server a;", {"servers": ["http://a"], "balance": "client_address"}),
        ("random two least_conn; server a;", {"servers": ["http://a"], "balance": "two_choices"}),
        ("hash $remote_addr consistent; server a;", {"servers": ["http://a"], "balance": "hash"}),
        (
            "hash $http_x_user; server a;",
            {"servers": ["http://a"], "balance": "hash", "hash_by": "header:x-user"},
        ),
        (
            "hash $request_uri; server a;",
            {"servers": ["http://a"], "balance": "hash", "hash_by": "target"},
        ),
        (
            "server a; sticky cookie srv expires=1h;",
            {"servers": ["http://a"], "sticky_cookie": "srv"},
        ),
        (
            "server a; keepalive 32; keepalive_timeout 30s; zone z 64k;",
            {"servers": ["http://a"], "keepalive_timeout": "30s"},
        ),
        (
            "server a:8000 resolve;",
            {"servers": [{"url": "http://a:8000", "discover": "addresses"}]},
        ),
        (
            "server a service=http resolve;",
            {"servers": [{"url": "http://_http._tcp.a", "discover": "srv"}]},
        ),
    ],
)
def test_servers_and_their_settings(tmp_path: Path, text: str, keys: dict[str, Any]) -> None:
    assert upstream(tmp_path, text)[1] == keys


def test_resolvers_count_where_servers_are_discovered(tmp_path: Path) -> None:
    http = "resolver 10.0.0.2 [::1]:5353 valid=10s;"
    found, keys = upstream(tmp_path, "server a resolve;", http=http)
    assert keys["resolvers"] == ["10.0.0.2", "[::1]:5353"]
    assert found.status("resolver") is Status.TRANSLATED
    found, keys = upstream(tmp_path, "server a;", http=http)
    assert "resolvers" not in keys
    assert found.status("resolver") is Status.LEFT_OUT


def test_a_hash_of_something_else_is_left_out(tmp_path: Path) -> None:
    found, keys = upstream(tmp_path, "hash $scheme$request_uri; server a;")
    assert keys == {"servers": ["http://a"]}
    assert found.status("hash") is Status.LEFT_OUT


def test_one_upstream_for_all_that_use_it_alike(tmp_path: Path) -> None:
    text = """
    location /a/ { proxy_pass http://b; }
    location /b/ { proxy_pass http://b; }
    location /c/ { proxy_pass https://b; }
    """
    found = Migrated(tmp_path, site(text, http="upstream b { server 10.0.0.1; }"))
    assert list(found.keys["upstreams"]) == ["b", "b-2"]
    assert found.keys["upstreams"]["b-2"]["servers"] == ["https://10.0.0.1"]


def test_an_upstream_that_nothing_uses_is_not_written(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("return 204;", http="upstream b { server a; }"))
    assert "upstreams" not in found.keys
    assert found.status("upstream b") is Status.LEFT_OUT
    assert found.status("server a") is Status.LEFT_OUT
