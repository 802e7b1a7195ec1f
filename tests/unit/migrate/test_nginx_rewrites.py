"""`return`, `rewrite`, `if`, `set` and `map`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")

HOST = "proxy_set_header Host $host; proxy_redirect off;"


@pytest.mark.parametrize(
    ("directive", "answer"),
    [
        ("return 204;", {"status": 204}),
        ("return 404;", {"status": 404, "body": "404 Not Found\n"}),
        ("return 444;", {"status": 403, "body": "403 Forbidden\n"}),
        (
            'return 200 "a {b} $remote_addr\\n";',
            {"status": 200, "body": "a {{b}} {client.ip}\n", "content_type": "text/plain"},
        ),
        ("return 301 https://b.test$request_uri;", {"to": "https://b.test{uri}", "status": 301}),
        ("return https://b.test/x;", {"to": "https://b.test/x"}),
        ("return 302 /x?y=$arg_y;", {"to": "/x?y={query.y}"}),
        ("return 307 $scheme://www.$host$uri;", {"to": "https://www.{host}{path}", "status": 307}),
        ("return 301 https://b.test/x$is_args$args;",
         {"to": "https://b.test/x{?query}", "status": 301}),
        ("return 308 https://$server_name$uri$is_args$args;",
         {"to": "https://a.test{uri}", "status": 308}),
        ("return 301 /$http_x/$cookie_c;", {"to": "/{header.x}/{cookie.c}", "status": 301}),
    ],
)  # fmt: skip
def test_returns(tmp_path: Path, directive: str, answer: dict[str, Any]) -> None:
    assert Migrated(tmp_path, site(directive)).answer("/") == answer


def test_the_media_type_of_a_text(tmp_path: Path) -> None:
    text = """
    location /a { default_type application/json; return 200 '{"a": 1}'; }
    location /b { add_header Content-Type text/html; return 200 x; }
    """
    found = Migrated(tmp_path, site(text))
    assert found.answer("/a")["content_type"] == "application/json"
    assert found.answer("/a")["body"] == '{{"a": 1}}'
    assert found.filters("/b") == [
        {"respond": {"status": 200, "body": "x", "content_type": "text/html"}}
    ]


@pytest.mark.parametrize(
    ("directive", "path", "answer"),
    [
        ("rewrite ^/old/(.*)$ /new/$1 permanent;", "/old/x",
         {"to": "/new/{match.1}{?query}", "status": 301}),
        ("rewrite ^/old$ /new? redirect;", "/old", {"to": "/new"}),
        ("rewrite ^/old$ /new?a=b redirect;", "/old", {"to": "/new?a=b{&query}"}),
        ("rewrite ^ https://b.test$request_uri? permanent;", "/x",
         {"to": "https://b.test{uri}", "status": 301}),
        ("rewrite ^(.*)$ https://b.test$1 permanent;", "/x",
         {"to": "https://b.test{uri}", "status": 301}),
        ("rewrite ^/u/(?<name>\\w+)$ /users/$name redirect;", "/u/x",
         {"to": "/users/{match.name}{?query}"}),
    ],
)  # fmt: skip
def test_rewrites_that_redirect(
    tmp_path: Path, directive: str, path: str, answer: dict[str, Any]
) -> None:
    found = Migrated(tmp_path, site(f"{directive} location / {{ return 200 other; }}"))
    assert found.answer(path) == answer
    has_groups = "match" in answer["to"] or "$1" in directive
    assert found.status("rewrite") is (Status.DIFFERENT if has_groups else Status.TRANSLATED)


@pytest.mark.parametrize(
    ("directive", "rewrite"),
    [
        ("rewrite ^/api/(.*)$ /$1 break;", {"pattern": "^/api/(.*)$", "replacement": "/\\1"}),
        ("rewrite ^/api /v2 break;", {"pattern": "^/api.*$", "replacement": "/v2"}),
        ("rewrite a|b /c break;", {"pattern": "^.*?(?:a|b).*$", "replacement": "/c"}),
    ],
)
def test_rewrites_on_the_way_to_the_origin(
    tmp_path: Path, directive: str, rewrite: dict[str, str]
) -> None:
    found = Migrated(tmp_path, site(f"location / {{ {directive} proxy_pass http://b; {HOST} }}"))
    assert found.filters("/") == [{"rewrite": rewrite}]


def test_a_rewrite_with_a_query_is_for_the_paths_that_match(tmp_path: Path) -> None:
    text = f"""location / {{
      rewrite ^/u/(\\d+)$ /user?id=$1 break; rewrite ^/q$ /plain? break;
      proxy_pass http://b; {HOST}
    }}"""
    found = Migrated(tmp_path, site(text))
    assert found.filters("/u/12") == [{"rewrite": {"path": "/user?id={match.1}"}}]
    assert found.filters("/q") == [{"rewrite": {"path": "/plain", "query": "drop"}}]
    assert found.filters("/u/x") == []


def test_last_chooses_the_location_of_the_new_path(tmp_path: Path) -> None:
    text = f"""
    rewrite ^/profile/(.*)$ /users/$1 last;
    location /users/ {{ proxy_pass http://users; {HOST} }}
    location /old/ {{ rewrite ^/old/(.*)$ /fixed/page last; }}
    location = /fixed/page {{ return 200 fixed; }}
    location / {{ proxy_pass http://b; {HOST} }}
    """
    found = Migrated(tmp_path, site(text))
    assert found.route("/profile/x").upstream == "users"
    rewrite = {"pattern": "^/profile/(.*)$", "replacement": "/users/\\1"}
    assert found.filters("/profile/x") == [{"rewrite": rewrite}]
    assert found.answer("/old/x")["body"] == "fixed"
    assert found.route("/other").upstream == "b"


def test_locations_that_lead_to_each_other_are_reported(tmp_path: Path) -> None:
    text = "location /a/ { rewrite ^ /b/x last; } location /b/ { rewrite ^ /a/x last; }"
    found = Migrated(tmp_path, site(text))
    assert any("without an end" in line.words for line in found.translation.report)


CONDITIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("$request_method = POST", {"method": "POST"}, {}),
    ("$request_method !~ ^(GET|HEAD)$", {"method": "PUT"}, {"method": "HEAD"}),
    ('$http_user_agent ~* "bot|spider"', {"fields": [("user-agent", "A Bot")]}, {}),
    ("$http_x_key != secret", {}, {"fields": [("x-key", "secret")]}),
    ('$http_origin = ""', {}, {"fields": [("origin", "x")]}),
    ("$http_origin", {"fields": [("origin", "x")]}, {}),
    ("$cookie_beta = 1", {"fields": [("cookie", "beta=1")]}, {}),
    ("$arg_debug", {"path": "/?debug=1"}, {}),
    ("$remote_addr = 192.0.2.7", {"client": "192.0.2.7"}, {}),
    ("$uri ~ ^/private/", {"path": "/private/x"}, {"path": "/public/x"}),
    ("$request_uri = /x", {"path": "/x"}, {"path": "/x/y"}),
    ("$host = www.a.test", {"host": "www.a.test"}, {}),
    ("$host != a.test", {"host": "www.a.test"}, {}),
    ("$host ~ ^www\\.", {"host": "www.a.test"}, {}),
    ("$bad_agent", {"fields": [("user-agent", "curl/8")]}, {}),
    ("$bad_agent = 2", {"fields": [("user-agent", "Wget")]},
     {"fields": [("user-agent", "curl")]}),
    ("$blocked", {"client": "198.51.100.9"}, {"client": "198.51.100.1"}),
]  # fmt: skip

MAPS = """
map $http_user_agent $bad_agent { default 0; ~*curl 1; wget 2; }
geo $blocked { default 0; 198.51.100.0/24 1; 198.51.100.1 0; }
"""


@pytest.mark.parametrize(("condition", "meets", "other"), CONDITIONS)
def test_conditions(
    tmp_path: Path, condition: str, meets: dict[str, Any], other: dict[str, Any]
) -> None:
    text = f"if ({condition}) {{ return 418 met; }} location / {{ return 200 other; }}"
    found = Migrated(tmp_path, site(text, http=MAPS, names="a.test www.a.test"))
    met, others = {"path": "/", **meets}, {"path": "/", **other}
    assert found.answer(**met)["status"] == 418
    assert found.answer(**others)["status"] == 200
    # Hosts that no server names, which the default server gets, are not known.
    is_open = "$host ~" in condition
    assert found.status("if") is (Status.DIFFERENT if is_open else Status.TRANSLATED)


@pytest.mark.parametrize(
    "condition",
    ["-f $request_filename", "!-e $request_filename", "$invalid_referer", "$geoip_country = DE",
     "$http_a$http_b = x"],
)  # fmt: skip
def test_conditions_that_no_route_has_are_left_out(tmp_path: Path, condition: str) -> None:
    text = f"if ({condition}) {{ return 418; }} location / {{ return 200 other; }}"
    found = Migrated(tmp_path, site(text))
    assert found.answer("/")["status"] == 200
    assert found.status("if") is Status.LEFT_OUT
    assert found.status("return 418") is Status.LEFT_OUT


def test_a_condition_on_plain_http_is_never_met(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("if ($scheme = http) { return 301 https://$host; }"))
    assert found.status("if") is Status.TRANSLATED
    assert "plain HTTP is redirected" in found.line("if").words
    assert found.status("return") is Status.TRANSLATED


def test_conditions_within_a_location_change_what_it_does(tmp_path: Path) -> None:
    text = f"""location /a/ {{
      if ($request_method = OPTIONS) {{ add_header X-A preflight always; return 204; }}
      if ($arg_debug) {{ proxy_pass http://debug; }}
      {HOST} proxy_pass http://b;
    }}"""
    found = Migrated(tmp_path, site(text))
    assert found.answer("/a/", method="OPTIONS") == {"status": 204}
    assert found.filters("/a/", method="OPTIONS")[0] == {
        "headers": {"response": {"add": {"x-a": "preflight"}}}
    }
    assert found.route("/a/?debug=1").upstream == "debug"
    assert found.route("/a/").upstream == "b"


def test_groups_of_a_host_are_known(tmp_path: Path) -> None:
    text = "if ($host ~* ^www\\.(.+)$) { return 301 https://$1$request_uri; }"
    found = Migrated(tmp_path, site(text, names="www.a.test www.b.test a.test"))
    assert found.answer("/", host="www.a.test")["to"] == "https://a.test{uri}"
    assert found.answer("/", host="www.b.test")["to"] == "https://b.test{uri}"
    assert found.answer("/", host="a.test")["status"] == 404


def test_a_table_of_redirects(tmp_path: Path) -> None:
    http = 'map $uri $new { default ""; /old.html /new; ~^/b/(?<x>[a-z]+)$ /blog/$x; }'
    text = "if ($new) { return 301 $new; } location / { return 200 other; }"
    found = Migrated(tmp_path, site(text, http=http))
    assert found.answer("/old.html") == {"to": "/new", "status": 301}
    assert found.answer("/b/page") == {"to": "/blog/{match.x}", "status": 301}
    assert found.answer("/b/")["body"] == "other"
    for start in ("map", "default", "/old.html", "~^/b/"):
        assert found.status(start) is Status.TRANSLATED, start


def test_values_of_maps_in_fields(tmp_path: Path) -> None:
    http = "map $http_accept $kind { default html; ~json api; }"
    text = f"location / {{ proxy_pass http://b; {HOST} proxy_set_header X-Kind $kind; }}"
    found = Migrated(tmp_path, site(text, http=http))

    def kind(**request: Any) -> Any:
        return found.filters("/", **request)[0]["headers"]["request"]["set"]["x-kind"]

    assert kind() == "html"
    assert kind(fields=[("accept", "application/json")]) == "api"


def test_a_table_of_a_thousand_redirects(tmp_path: Path) -> None:
    entries = "\n".join(f"/old/{number} /new/{number};" for number in range(1000))
    text = "if ($new) { return 301 $new; } location /a/ { return 204; } location / { return 204; }"
    found = Migrated(tmp_path, site(text, http=f"map $request_uri $new {{ {entries} }}"))
    assert found.answer("/old/999")["to"] == "/new/999"
    assert found.answer("/old/1000")["status"] == 204
    assert len(found.keys["routes"]) == 1002


def test_routes_that_quicedge_would_refuse_are_answered_501_however_many_there_are(
    tmp_path: Path,
) -> None:
    refused = "rewrite ^/(.*)$ /x/$2 break; proxy_pass http://b;"
    text = "\n".join(f"location /{number}/ {{ {refused} }}" for number in range(60))
    text += f"location /status/ {{ add_header X-Was 501 always; {refused} }}"
    found = Migrated(tmp_path, site(f"{text} location / {{ return 204; }}"))
    for path in ("/0/x", "/59/x", "/status/x"):
        assert found.answer(path)["status"] == 501, path
    assert found.answer("/")["status"] == 204
    assert "names the group 2" in found.line("location /59/").words
