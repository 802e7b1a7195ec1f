"""Files, error pages, fields of responses and compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")


@pytest.mark.parametrize(
    ("text", "path", "keys", "filters"),
    [
        ("root /srv/a;", "/", {"root": "/srv/a"}, []),
        ("location /s/ { root /srv/a; }", "/s/x", {"root": "/srv/a"}, []),
        ("location /s/ { alias /srv/a/; }", "/s/x", {"root": "/srv/a"},
         [{"rewrite": {"strip_prefix": "/s"}}]),
        ("location = /f.ico { alias /srv/a/g.ico; }", "/f.ico", {"root": "/srv/a"},
         [{"rewrite": {"path": "/g.ico"}}]),
        ("location ~ ^/u/(.+)$ { alias /srv/a/$1; }", "/u/x", {"root": "/srv/a"},
         [{"rewrite": {"path": "/{match.1}"}}]),
        ("root /srv/a; index index.htm index.html;", "/",
         {"root": "/srv/a", "index": ["index.htm", "index.html"]}, []),
        ("root /srv/a; autoindex on;", "/", {"root": "/srv/a", "listing": True}, []),
        ("root /srv/a; location / { try_files $uri $uri/ =404; }", "/", {"root": "/srv/a"}, []),
        ("root /srv/a; location / { try_files $uri $uri/ /index.html; }", "/",
         {"root": "/srv/a", "fallback": "/index.html"}, []),
        ("root /srv/a; location / { try_files $uri $uri.html $uri/ =404; }", "/",
         {"root": "/srv/a", "clean_urls": True}, []),
        ("root /srv/a; error_page 404 /404.html;", "/",
         {"root": "/srv/a", "not_found": "/404.html"}, []),
        ("root /srv/a; error_page 404 =200 /index.html;", "/",
         {"root": "/srv/a", "fallback": "/index.html"}, []),
        ("root /srv/a; gzip_static on; brotli_static on;", "/",
         {"root": "/srv/a", "precompressed": ["br", "gzip"]}, []),
        ("root /srv/a; types { application/x-a a; text/html html; }", "/",
         {"root": "/srv/a", "mime_types": {"a": "application/x-a"}}, []),
        ("root /srv/a; types { application/x-a tar.a a; }", "/",
         {"root": "/srv/a", "mime_types": {"a": "application/x-a"}}, []),
        ("root /srv/$host;", "/", {"root": "/srv/a.test"}, []),
    ],
)  # fmt: skip
def test_files(
    tmp_path: Path, text: str, path: str, keys: dict[str, Any], filters: list[Any]
) -> None:
    found = Migrated(tmp_path, site(text))
    assert found.upstream(path) == keys
    assert found.filters(path) == filters


def test_files_and_an_application_behind_them(tmp_path: Path) -> None:
    text = """
    root /srv/a;
    location / { try_files $uri @app; }
    location /plain/ { try_files /nothing @app; }
    location @app { proxy_pass http://b; proxy_set_header Host $host; }
    """
    found = Migrated(tmp_path, site(text))
    assert found.route("/").upstream == "b"
    line = found.line("try_files $uri @app")
    assert line.status is Status.DIFFERENT
    assert "files are not looked for" in line.words
    assert found.status("location @app") is Status.TRANSLATED


def test_a_server_without_files_and_locations_answers_404(tmp_path: Path) -> None:
    assert Migrated(tmp_path, site("")).answer("/")["status"] == 404


def test_pages_of_errors(tmp_path: Path) -> None:
    text = """
    root /srv/a; proxy_redirect off;
    error_page 500 502 503 504 /50x.html;
    location = /50x.html { root /srv/errors; internal; }
    location /a/ { proxy_pass http://b; proxy_set_header Host $host; }
    location /b/ { proxy_pass http://b; proxy_set_header Host $host; proxy_intercept_errors on; }
    location /c/ { error_page 403 https://b.test/; error_page 401 =200 /x; return 204; }
    """
    found = Migrated(tmp_path, site(text))
    pages = dict.fromkeys(("500", "502", "503", "504"), "/srv/errors/50x.html")
    assert found.filters("/a/") == [{"error_pages": {"pages": pages}}]
    assert found.filters("/b/") == [{"error_pages": {"pages": pages, "origin": True}}]
    assert found.answer("/50x.html")["status"] == 404
    assert any("50x.html" in text for text in found.translation.to_supply)


def test_requests_that_are_too_large_have_the_fields_around_an_if(tmp_path: Path) -> None:
    text = """
    add_header X-Server always always;
    location / {
      if ($request_method = POST) { add_header X-Post yes always; }
      proxy_pass http://b;
    }
    """
    found = Migrated(tmp_path, site(text))
    line = found.line("add_header X-Post")
    assert line.status is Status.DIFFERENT
    assert "413 has these fields too" in line.words
    assert {effect.name for effect in line.effects} == {"error x-post", "error x-server"}
    assert found.status("add_header X-Server") is Status.TRANSLATED


def test_fields_of_responses(tmp_path: Path) -> None:
    text = """
    add_header X-A a always; add_header X-B $request_uri; add_header X-C $upstream_status;
    add_header Link "</a>" always; add_header Link "</b>" always;
    location /a/ { root /srv; }
    location /own/ { root /srv; expires 1h; add_header Cache-Control public; }
    location /hide/ {
      proxy_pass http://b; proxy_set_header Host $host; proxy_redirect off;
      proxy_hide_header X-Powered-By; proxy_pass_header Server; add_header X-Frame-Options DENY;
    }
    """
    found = Migrated(tmp_path, site(text))
    assert found.filters("/a/") == [
        {"headers": {"response": {"add": {"link": "</b>"}}}},
        {"headers": {"response": {"add": {"x-a": "a", "x-b": "{uri}", "link": "</a>"}}}},
    ]
    assert found.filters("/own/") == [
        {"headers": {"response": {"set": {"cache-control": "max-age=3600, public"}}}}
    ]
    assert found.filters("/hide/") == [
        {"headers": {"response": {"remove": ["x-powered-by"], "add": {"x-frame-options": "DENY"}}}}
    ]
    assert found.status("add_header X-A") is Status.TRANSLATED
    assert found.status("add_header X-B") is Status.DIFFERENT
    assert found.status("add_header X-C") is Status.LEFT_OUT


@pytest.mark.parametrize(
    ("time", "value"),
    [("30d", "max-age=2592000"), ("max", "max-age=315360000"), ("-1", "no-cache"),
     ("epoch", "no-cache"), ("1h 30m", None), ("off", None), ("@15h30m", None)],
)  # fmt: skip
def test_times_that_responses_may_be_kept(tmp_path: Path, time: str, value: str | None) -> None:
    found = Migrated(tmp_path, site(f"location / {{ root /srv; expires {time}; }}"))
    expected = (
        [] if value is None else [{"headers": {"response": {"set": {"cache-control": value}}}}]
    )
    assert found.keys.get("filters", []) == expected


def test_compression_that_all_routes_share_is_written_once(tmp_path: Path) -> None:
    http = """
    gzip on; gzip_types text/css application/json; gzip_min_length 1k; gzip_comp_level 6;
    gzip_vary on; gzip_proxied any; gzip_disable msie6; brotli on; brotli_types text/css;
    """
    found = Migrated(tmp_path, site("root /srv; location /a/ { root /a; }", http=http))
    assert found.keys["filters"] == [
        {
            "compress": {
                "encodings": ["br", "gzip"],
                "gzip_level": 6,
                "types": ["text/html", "text/css", "application/json"],
                "min_size": 20,
            }
        }
    ]
    assert found.filters("/") == []
    assert found.status("gzip on") is Status.TRANSLATED


def test_compression_of_one_location_is_its_own(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site("root /srv; location /a/ { root /a; gzip on; }"))
    assert "filters" not in found.keys
    compress = {"encodings": ["gzip"], "types": ["text/html"], "min_size": 20}
    assert found.filters("/a/") == [{"compress": compress}]
    assert found.filters("/") == []
    assert found.status("gzip on") is Status.DIFFERENT


def test_fields_for_some_media_types_are_sent_with_all(tmp_path: Path) -> None:
    http = """
    map $sent_http_content_type $policy { default ""; ~*text/html "a 'self'"; ~*xml "a 'self'"; }
    map $sent_http_content_type $several { default a; ~*text/html b; }
    """
    text = "root /srv; add_header X-Policy $policy always; add_header X-Several $several;"
    found = Migrated(tmp_path, site(text, http=http))
    assert found.keys["filters"] == [{"headers": {"response": {"add": {"x-policy": "a 'self'"}}}}]
    assert found.status("add_header X-Policy") is Status.DIFFERENT
    assert found.status("map $sent_http_content_type $policy") is Status.DIFFERENT
    assert found.status("add_header X-Several") is Status.LEFT_OUT
