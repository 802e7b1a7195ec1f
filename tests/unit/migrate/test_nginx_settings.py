"""Addresses, TLS, logs, workers, access and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")

TLS = "ssl_certificate /etc/a.pem; ssl_certificate_key /etc/a.key;"


def config(tmp_path: Path, *servers: str, top: str = "", http: str = "") -> Migrated:
    blocks = "\n".join(f"server {{ {text} }}" for text in servers)
    return Migrated(tmp_path, f"{top}\nevents {{}}\nhttp {{\n{http}\n{blocks}\n}}\n")


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "keys"),
    [
        ("listen 443 ssl;", {"listen": ["0.0.0.0:443"]}),
        ("listen 443 ssl http2; listen [::]:443 ssl ipv6only=on;", {}),
        ("listen 443 ssl; listen 443 quic reuseport; listen [::]:443 ssl;", {}),
        ("listen 192.0.2.1:8443 ssl;", {"listen": ["192.0.2.1:8443"]}),
        ("listen 8080;", {"listen": ["0.0.0.0:8080"]}),
        ("listen 80;", {"listen": ["0.0.0.0:443"], "redirect_http": ["0.0.0.0:80"]}),
        ("", {"listen": ["0.0.0.0:443"], "redirect_http": ["0.0.0.0:80"]}),
        ("listen 80; listen 443 ssl;",
         {"listen": ["0.0.0.0:443"], "redirect_http": ["0.0.0.0:80"]}),
    ],
)  # fmt: skip
def test_addresses(tmp_path: Path, listen: str, keys: dict[str, Any]) -> None:
    found = config(tmp_path, f"{listen} server_name a.test; {TLS} return 204;").keys
    assert {k: found[k] for k in ("listen", "redirect_http") if k in found} == keys


def test_plain_http_that_is_content_is_announced(tmp_path: Path) -> None:
    found = config(tmp_path, "listen 8080; server_name a.test; return 204;")
    assert found.status("listen 8080") is Status.DIFFERENT
    assert "over TLS" in found.line("listen 8080").words
    assert any("certificates" in text for text in found.translation.to_supply)


@pytest.mark.parametrize(
    "text",
    [
        "return 301 https://$host$request_uri;",
        "return 301 https://$server_name$request_uri;",
        "return 301 https://a.test$request_uri;",
        "rewrite ^ https://$host$request_uri? permanent;",
        "location / { return 301 https://$host$request_uri; }",
        "if ($host = a.test) { return 301 https://$host$request_uri; } return 404;",
        "location /.well-known/acme-challenge/ { root /srv; } "
        "location / { return 301 https://$host$request_uri; }",
    ],
)
def test_a_server_that_redirects_to_https_is_redirect_http(tmp_path: Path, text: str) -> None:
    found = config(
        tmp_path,
        f"listen 80; server_name a.test; {text}",
        f"listen 443 ssl; server_name a.test; {TLS} return 204;",
    )
    assert found.keys["redirect_http"] == ["0.0.0.0:80"]
    assert [route["filters"] for route in found.keys["routes"]] == [[{"respond": {"status": 204}}]]


def test_a_redirect_to_the_first_of_several_names_is_none_to_https_alone(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        "listen 80; server_name a.test www.a.test; return 301 https://$server_name$request_uri;",
        f"listen 443 ssl; server_name a.test; {TLS} return 204;",
    )
    assert found.answer("/", host="www.a.test") == {"to": "https://a.test{uri}", "status": 301}
    assert found.answer("/", host="a.test") == {"status": 204}


def test_a_redirect_to_another_host_is_a_route(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        "listen 80; server_name a.test www.a.test; return 301 https://www.a.test$request_uri;",
        f"listen 443 ssl; server_name www.a.test; {TLS} return 204;",
    )
    assert found.answer("/", host="a.test") == {"to": "https://www.a.test{uri}", "status": 301}
    assert found.answer("/", host="www.a.test") == {"status": 204}


def test_names_of_servers(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        f"listen 443 ssl; server_name first.test; {TLS} return 200 first;",
        "listen 443 ssl; server_name A.test *.b.test; return 200 second;",
        "listen 443 ssl; server_name .c.test; return 200 third;",
        "listen 443 ssl; server_name ~^(www\\.)?d\\.test$ ~^e\\d+; return 200 fourth;",
        "listen 443 ssl default_server; server_name _; return 200 default;",
    )
    hosts = {
        "first.test": "first", "a.test": "second", "x.y.b.test": "second", "c.test": "third",
        "x.c.test": "third", "d.test": "fourth", "www.d.test": "fourth", "e1": "default",
        "other.test": "default",
    }  # fmt: skip
    assert {host: found.answer("/", host=host)["body"] for host in hosts} == hosts
    line = found.line("server_name ~")
    assert line.status is Status.DIFFERENT
    assert "~^e" in line.words


def test_the_first_server_is_the_default_one(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        f"listen 443 ssl; server_name a.test; {TLS} return 200 a;",
        "listen 443 ssl; server_name b.test; return 200 b;",
    )
    assert found.answer("/", host="other.test")["body"] == "a"


def test_load_balancers_that_send_proxy_headers(tmp_path: Path) -> None:
    text = f"listen 443 ssl proxy_protocol; server_name a.test; {TLS} return 204;"
    http = "set_real_ip_from 10.0.0.0/8; real_ip_header proxy_protocol;"
    found = config(tmp_path, text, http=http)
    assert found.keys["listen"] == [{"address": "0.0.0.0:443", "proxy_protocol": ["10.0.0.0/8"]}]
    assert found.status("real_ip_header") is Status.TRANSLATED
    found = config(tmp_path, f"listen 443 ssl; {TLS} set_real_ip_from 10.0.0.0/8; return 204;")
    assert found.status("set_real_ip_from") is Status.LEFT_OUT


# --- TLS ------------------------------------------------------------------------------------------


def test_certificates_and_the_default_one(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        "listen 443 ssl; server_name a.test; ssl_certificate a.pem; ssl_certificate_key a.key;"
        "return 204;",
        f"listen 443 ssl default_server; server_name b.test; {TLS} return 204;",
        f"listen 443 ssl; server_name c.test; {TLS} return 204;",
    )
    assert found.keys["tls"]["certificates"] == [
        {"cert": str(tmp_path / "a.pem"), "key": str(tmp_path / "a.key")},
        {"cert": "/etc/a.pem", "key": "/etc/a.key", "default": True},
    ]
    assert any("a.pem, which is not on this machine" in t for t in found.translation.to_supply)


@pytest.mark.parametrize(
    ("text", "key", "value", "status"),
    [
        ("ssl_protocols TLSv1.3;", "policy", "modern", Status.TRANSLATED),
        ("ssl_protocols TLSv1.2 TLSv1.3;", "policy", None, Status.TRANSLATED),
        ("ssl_protocols TLSv1 TLSv1.2;", "policy", None, Status.DIFFERENT),
        ("ssl_ecdh_curve X25519:prime256v1;", "groups", ["x25519", "secp256r1"], Status.TRANSLATED),
        ("ssl_ecdh_curve auto;", "groups", None, Status.TRANSLATED),
        ("ssl_ciphers HIGH;", "policy", None, Status.DIFFERENT),
        ("ssl_session_cache shared:a:10m;", "policy", None, Status.TRANSLATED),
        ("ssl_session_tickets off;", "policy", None, Status.DIFFERENT),
        ("ssl_reject_handshake on;", "require_server_name", True, Status.TRANSLATED),
    ],
)
def test_settings_of_tls(tmp_path: Path, text: str, key: str, value: Any, status: Status) -> None:
    served = f"listen 443 ssl; server_name a.test; {TLS} return 204;"
    found = config(tmp_path, served, f"listen 443 ssl; server_name b.test; {TLS} {text}")
    assert found.keys["tls"].get(key) == value
    assert found.status(text.split()[0]) is status


def test_certificates_of_clients(tmp_path: Path) -> None:
    text = "listen 443 ssl; server_name b.test; ssl_client_certificate /etc/ca.pem;"
    found = config(
        tmp_path,
        f"listen 443 ssl; server_name a.test; {TLS} return 204;",
        f"{text} ssl_verify_client optional; ssl_crl /etc/crl.pem; return 204;",
    )
    assert found.keys["tls"]["client_auth"] == [
        {"client_ca": "/etc/ca.pem", "hosts": ["b.test"], "mode": "request",
         "crl": ["/etc/crl.pem"]}
    ]  # fmt: skip
    condition = 'if ($ssl_client_verify != "SUCCESS") { return 403; }'
    found = config(tmp_path, f"{TLS} {text} ssl_verify_client on; {condition} return 204;")
    assert found.keys["tls"]["client_auth"][0]["hosts"] == ["b.test", "*"]
    assert found.keys["routes"][0]["tls"] == {"client_certificate": True}
    assert found.status("ssl_verify_client") is Status.DIFFERENT


# --- outside of servers ---------------------------------------------------------------------------


def test_settings_outside_of_servers(tmp_path: Path) -> None:
    top = "user www-data www; worker_processes 4; pid /run/n.pid; error_log /var/log/e.log error;"
    http = "keepalive_timeout 75s; client_header_timeout 15; access_log /var/log/a.log main;"
    found = config(tmp_path, f"{TLS} listen 443 ssl; return 204;", top=top, http=http).keys
    assert (found["user"], found["group"], found["workers"]) == ("www-data", "www", 4)
    assert found["pid_file"] == "/run/n.pid"
    assert found["log"] == {
        "file": "/var/log/e.log", "level": "error", "access_file": "/var/log/a.log",
    }  # fmt: skip
    assert found["limits"] == {"header_timeout": "15s", "keepalive_timeout": "75s"}


def test_no_access_log_at_all(tmp_path: Path) -> None:
    found = config(tmp_path, f"{TLS} listen 443 ssl; return 204;", http="access_log off;")
    assert found.keys["log"] == {"access": False}


# --- who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "access"),
    [
        ("allow 10.0.0.0/8; deny all;", {"allow": ["10.0.0.0/8"]}),
        ("deny 10.0.0.1; allow all;", {"deny": ["10.0.0.1/32"]}),
        ("deny 10.0.0.1; allow 10.0.0.0/8; deny all;",
         {"allow": ["10.0.0.0/8"], "deny": ["10.0.0.1/32"]}),
        # The first rule counts in nginx, so that the second has no effect.
        ("allow 10.0.0.0/8; deny 10.0.0.1; deny all;", {"allow": ["10.0.0.0/8"]}),
        ("allow 10.0.0.1; deny 10.0.0.0/8;",
         {"allow": ["10.0.0.1/32", "0.0.0.0/0", "::/0"], "deny": ["10.0.0.0/8"]}),
        ("allow 2001:db8::/32; deny all;", {"allow": ["2001:db8::/32"]}),
        ("allow all;", None),
    ],
)  # fmt: skip
def test_networks_of_clients(
    tmp_path: Path, rules: str, access: dict[str, list[str]] | None
) -> None:
    found = Migrated(tmp_path, site(f"location / {{ {rules} root /srv; }}"))
    assert found.filters("/") == ([] if access is None else [{"access": access}])


def test_nobody_may(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("location / { deny all; root /srv; }"))
    assert found.answer("/")["status"] == 403


def test_passwords(tmp_path: Path) -> None:
    text = """
    auth_basic "Staff only"; auth_basic_user_file users;
    location /open/ { auth_basic off; root /srv; }
    location / { root /srv; }
    """
    found = Migrated(tmp_path, site(text))
    auth = {"htpasswd": str(tmp_path / "users"), "realm": "Staff only", "forward_credentials": True}
    assert found.filters("/") == [{"basic_auth": auth}]
    assert found.filters("/open/") == []
    assert any("bcrypt" in text for text in found.translation.to_supply)


def test_either_a_network_or_a_password(tmp_path: Path) -> None:
    text = "location / { satisfy any; allow 192.0.2.0/24; deny all; root /srv;"
    text += "auth_basic x; auth_basic_user_file /u; }"
    found = Migrated(tmp_path, site(text))
    assert found.filters("/", client="192.0.2.1") == []
    assert "basic_auth" in found.filters("/", client="198.51.100.1")[0]


def test_an_address_that_is_denied_needs_the_password(tmp_path: Path) -> None:
    http = "geo $office { default 0; 192.0.2.0/24 1; }"
    rules = "satisfy any; deny 192.0.2.9; allow 192.0.2.0/24; deny all;"
    auth = f"{rules} auth_basic x; auth_basic_user_file /u; root /srv;"
    text = f"location / {{ {auth} }} location /g/ {{ {auth} if ($office) {{ set $a b; }} }}"
    found = Migrated(tmp_path, site(text, http=http))
    assert found.filters("/", client="192.0.2.1") == []
    for client in ("192.0.2.9", "198.51.100.1"):
        assert "basic_auth" in found.filters("/", client=client)[0]
        assert "basic_auth" in found.filters("/g/", client=client)[0]


def test_methods_that_only_some_may_use(tmp_path: Path) -> None:
    text = "location / { limit_except GET { allow 192.0.2.0/24; deny all; } root /srv; }"
    found = Migrated(tmp_path, site(text))
    assert found.filters("/", method="GET") == []
    assert found.filters("/", method="HEAD") == []
    assert found.filters("/", method="POST") == [{"access": {"allow": ["192.0.2.0/24"]}}]


def test_a_service_that_is_asked(tmp_path: Path) -> None:
    text = """
    location / {
      auth_request /auth; auth_request_set $user $upstream_http_x_user;
      proxy_set_header X-User $user; proxy_set_header Host $host; proxy_pass http://b;
      proxy_redirect off;
    }
    location = /auth {
      internal; proxy_pass http://127.0.0.1:9/check; proxy_pass_request_body off;
      proxy_set_header Content-Length ""; proxy_set_header X-Original-URI $request_uri;
    }
    """
    found = Migrated(tmp_path, site(text))
    assert found.filters("/") == [
        {"forward_auth": {"upstream": "local-9", "path": "/check", "copy_headers": ["x-user"]}}
    ]
    assert found.answer("/auth")["status"] == 404
    for start in ("auth_request_set", "proxy_set_header X-User", "internal"):
        assert found.status(start) is Status.TRANSLATED, start


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://auth$request_uri", "{uri}"),
        ("http://auth/check?of=$request_uri", "/check?of={uri}"),
        ("http://auth/check", "/check"),
        ("http://auth", "/a"),
    ],
)
def test_what_a_service_is_asked_for(tmp_path: Path, target: str, path: str) -> None:
    text = "proxy_redirect off;"
    text += "location / { auth_request /a; proxy_pass http://b; proxy_set_header Host $host; }"
    text += f"location = /a {{ internal; proxy_pass {target}; }}"
    found = Migrated(tmp_path, site(text))
    assert found.filters("/") == [{"forward_auth": {"upstream": "auth", "path": path}}]


def test_a_service_that_cannot_be_asked_lets_nobody_pass(tmp_path: Path) -> None:
    text = "location / { auth_request /auth; proxy_pass http://b; }"
    assert Migrated(tmp_path, site(text)).answer("/")["status"] == 401


@pytest.mark.parametrize(
    ("zone", "limit", "rate"),
    [
        ("rate=10r/s", "burst=20 nodelay", {"rate": "20 per 2 seconds"}),
        ("rate=10r/s", "", {"rate": "10/second"}),
        ("rate=10r/s", "burst=5", {"rate": "10/second"}),
        ("rate=30r/m", "burst=5", {"rate": "6 per 12 seconds"}),
        ("rate=1r/m", "", {"rate": "1/minute"}),
        ("rate=100000000r/s", "burst=7", {"rate": "100000000/second"}),
    ],
)
def test_rates(tmp_path: Path, zone: str, limit: str, rate: dict[str, str]) -> None:
    http = f"limit_req_zone $binary_remote_addr zone=z:1m {zone};"
    text = f"location / {{ limit_req zone=z {limit}; root /srv; }}"
    found = Migrated(tmp_path, site(text, http=http))
    assert found.keys["routes"][0]["requests"] == [rate]
    assert found.status("limit_req zone") is Status.DIFFERENT


def test_rates_by_something_else(tmp_path: Path) -> None:
    http = "limit_req_zone $http_x_key zone=a:1m rate=5r/s;"
    http += "limit_req_zone $server_name zone=b:1m rate=5r/s;"
    text = "location / { limit_req zone=a; limit_req zone=b; root /srv; }"
    found = Migrated(tmp_path, site(text, http=http))
    assert found.keys["routes"][0]["requests"] == [{"rate": "5/second", "by": "header:x-key"}]
    assert found.status("limit_req zone=b") is Status.LEFT_OUT
    assert found.status("limit_req_zone $server_name") is Status.LEFT_OUT


@pytest.mark.parametrize(
    "check",
    ["auth_jwt api;", "access_by_lua_file /x.lua;", "auth_digest x;"],
)
def test_nobody_passes_a_check_that_is_left_out(tmp_path: Path, check: str) -> None:
    text = (
        f"location /open/ {{ proxy_pass http://b; }} location / {{ {check} proxy_pass http://b; }}"
    )
    found = Migrated(tmp_path, site(text))
    assert found.answer("/")["status"] == 501
    assert found.route("/open/").upstream == "b"
    assert found.status(check.split()[0]) is Status.LEFT_OUT
    assert any("all are answered 501" in text for text in found.translation.to_supply)


def test_a_check_that_is_off_is_none(tmp_path: Path) -> None:
    text = "auth_jwt api; location / { auth_jwt off; proxy_pass http://b; }"
    assert Migrated(tmp_path, site(text)).route("/").upstream == "b"


@pytest.mark.parametrize("handler", ["js_content main.page;", "content_by_lua_file /x.lua;"])
def test_programs_of_other_servers_are_answered_501(tmp_path: Path, handler: str) -> None:
    found = Migrated(tmp_path, site(f"root /srv; location /p/ {{ {handler} }}"))
    assert found.answer("/p/")["status"] == 501
    assert any("is answered 501" in text for text in found.translation.to_supply)


def test_one_server_of_a_name_on_several_ports(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        f"listen 443 ssl; server_name a.test; {TLS} return 200 first;",
        f"listen 8443 ssl; server_name a.test; {TLS} location / {{ return 200 second; }}",
    )
    assert found.answer("/")["body"] == "first"
    assert "served by other servers" in found.line("location /").words
    assert any("served by other servers" in text for text in found.translation.to_supply)


def test_fields_in_a_file_that_is_missing_are_something_to_do(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("location / { include proxy_params; proxy_pass http://b; }"))
    assert found.status("include") is Status.LEFT_OUT
    assert any("proxy_params is not here" in text for text in found.translation.to_supply)


def test_unknown_hosts_that_are_redirected_to_a_name_are_announced_to_keep_theirs(
    tmp_path: Path,
) -> None:
    text = """events {} http {
    server { listen 80; server_name a.test; return 301 https://$server_name$request_uri; }
    server { listen 443 ssl; server_name a.test; location / { return 204; } }
}"""
    found = Migrated(tmp_path, text)
    listen = next(line for line in found.translation.report if line.text == "listen 80;")
    seen = Effect(Side.CLIENT, Aspect.STATUS, "301->204")
    assert any(effect.covers(seen) for effect in listen.effects)
