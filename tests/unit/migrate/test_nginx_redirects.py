"""`proxy_redirect` and `proxy_cookie_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")


def settings(found: Migrated, path: str, kind: str) -> dict[str, Any] | None:
    """Those of a filter of a route; None: it has none of the kind."""
    return next((item[kind] for item in found.filters(path) if kind in item), None)


def rules(found: Migrated, path: str = "/a/x") -> dict[str, str] | None:
    located = settings(found, path, "rewrite_location")
    return None if located is None else located["map"]


@pytest.mark.parametrize(
    ("location", "target", "expected"),
    [
        ("/a/", "http://b", {"http://b/": "/"}),
        ("/a/", "http://b:8000", {"http://b:8000/": "/"}),
        ("/a/", "https://b", {"https://b/": "/"}),
        ("/a/", "http://b/", {"http://b/": "/a/"}),
        ("/a/", "http://b/x/", {"http://b/x/": "/a/"}),
        ("/a", "http://b/", {"http://b/": "/a"}),
        ("^~ /a/", "http://b/x", {"http://b/x": "/a/"}),
        ("= /a/x", "http://b/y", {"http://b/y": "/a/x"}),
        ("~ ^/a/", "http://b", {"http://b/": "/"}),
        # Without a default in nginx, or one that no URL begins with.
        ("/a/", "http://b$request_uri", None),
        ("/a/", "http://unix:/run/app.sock", None),
    ],
)
def test_by_default_the_origins_own_address_becomes_the_location(
    tmp_path: Path, location: str, target: str, expected: dict[str, str] | None
) -> None:
    found = Migrated(tmp_path, site(f"location {location} {{ proxy_pass {target}; }}"))
    assert rules(found) == expected
    line = found.line("proxy_pass")
    exact = all(old.endswith("/") and new.endswith("/") for old, new in (expected or {}).items())
    assert any(effect.name == "location" for effect in line.effects) is not exact
    explicit = f"location {location} {{ proxy_pass {target}; proxy_redirect default; }}"
    if "$" not in target:
        found = Migrated(tmp_path, site(explicit))
        assert rules(found) == expected
        assert found.status("proxy_pass") is not Status.LEFT_OUT
        wanted = Status.TRANSLATED if exact else Status.DIFFERENT
        assert found.status("proxy_redirect") is wanted or expected is None


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ("proxy_redirect off;", None),
        ("proxy_redirect http://c/two/ http://d.test/one/;", {"http://c/two/": "http://d.test/one/"}),
        ("proxy_redirect http://c http://d.test;", {"http://c": "http://d.test"}),
        ("proxy_redirect http:// https://;", {"http://": "https://"}),
        ("proxy_redirect http:// $scheme://;", {"http://": "https://"}),
        ("proxy_redirect http://$host/ https://$http_host/;", {"http://{host}/": "https://{authority}/"}),
        ("proxy_redirect http://$proxy_host/ /a/;", {"http://b:8000/": "/a/"}),
        ("proxy_redirect / /;", {"/": "/"}),
        ("proxy_redirect default; proxy_redirect http://c/ /c/;",
         {"http://b:8000/": "/", "http://c/": "/c/"}),
        ("proxy_redirect http://c/ /1/; proxy_redirect http://c/ /2/;", {"http://c/": "/1/"}),
        (r"proxy_redirect ~^http://([^:]+):\d+(?<rest>/.+)$ https://$1$rest;",
         {r"~^http://([^:]+):\d+(?P<rest>/.+)$": r"https://\1\g<rest>"}),
        (r"proxy_redirect ~*/user/([^/]+)/(.+)$ http://$host/$1/$2;",
         {r"~(?i)/user/([^/]+)/(.+)$": r"http://{host}/\1/\2"}),
    ],
)  # fmt: skip
def test_what_is_configured_of_redirects(
    tmp_path: Path, directives: str, expected: dict[str, str] | None
) -> None:
    text = f"location / {{ proxy_pass http://b:8000; {directives} }}"
    found = Migrated(tmp_path, site(text))
    assert rules(found) == expected
    assert found.status("proxy_redirect") is Status.TRANSLATED
    # In a server it counts for all that is below.
    outside = Migrated(tmp_path, site(f"{directives} location / {{ proxy_pass http://b:8000; }}"))
    assert rules(outside) == expected


@pytest.mark.parametrize(
    ("directive", "reason"),
    [
        ("proxy_redirect ~^(?=x)y /;", "the regular expression"),
        ("proxy_redirect http://c/ /$upstream_http_x;", "no placeholder for $upstream_http_x"),
        ("proxy_redirect c/ /;", "is neither a path nor the beginning of a URL"),
    ],
)
def test_redirects_that_cannot_be_said_are_left_out_where_they_can_be_seen(
    tmp_path: Path, directive: str, reason: str
) -> None:
    found = Migrated(tmp_path, site(f"location / {{ proxy_pass http://b; {directive} }}"))
    assert rules(found) is None
    line = found.line("proxy_redirect")
    assert line.status is Status.LEFT_OUT
    assert reason in line.words
    assert {effect.name for effect in line.effects} == {"location", "refresh"}


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ("proxy_cookie_domain localhost example.org;", {"domain": {"localhost": "example.org"}}),
        ("proxy_cookie_domain .b.test $host;", {"domain": {"b.test": "{host}"}}),
        (r"proxy_cookie_domain ~\.([a-z]+\.test)$ $1;",
         {"domain": {r"~(?i)\.([a-z]+\.test)$": r"\1"}}),
        ("proxy_cookie_path /two/ /;", {"path": {"/two/": "/"}}),
        ("proxy_cookie_path ~*^/user/([^/]+) /u/$1;", {"path": {r"~(?i)^/user/([^/]+)": r"/u/\1"}}),
        ("proxy_cookie_flags one httponly samesite=Strict;",
         {"flags": {"one": ["httponly", "samesite=strict"]}}),
        ("proxy_cookie_flags b nosecure; proxy_cookie_flags ~ secure; proxy_cookie_flags x secure;",
         {"flags": {"b": ["nosecure"], "*": ["secure"]}}),
        ("proxy_cookie_flags ~*^s secure;", {"flags": {"~(?i)^s": ["secure"]}}),
        ("proxy_cookie_path off; proxy_cookie_domain off; proxy_cookie_flags off;", None),
        ("proxy_cookie_path / /;", None),
    ],
)  # fmt: skip
def test_what_is_configured_of_cookies(
    tmp_path: Path, directives: str, expected: dict[str, Any] | None
) -> None:
    found = Migrated(tmp_path, site(f"location / {{ proxy_pass http://b; {directives} }}"))
    wanted = None if expected is None else {"domain": {}, "path": {}, **expected}
    assert settings(found, "/", "rewrite_cookies") == wanted
    for line in found.translation.report:
        if line.text.startswith("proxy_cookie"):
            assert line.status is Status.TRANSLATED, line


@pytest.mark.parametrize("old", ["/", "~(.*)", "~*^(.+)$", "~^/$"])
def test_flags_behind_the_path_of_cookies_are_flags(tmp_path: Path, old: str) -> None:
    new = "$1" if "(" in old else "/"
    cookie_path = f'proxy_cookie_path {old} "{new}; Secure; SameSite=None";'
    text = f"location / {{ proxy_pass http://b; {cookie_path} }}"
    found = Migrated(tmp_path, site(text))
    line = found.line("proxy_cookie_path")
    if old == "~^/$":
        assert (line.status, line.effects[0].name) == (Status.LEFT_OUT, "set-cookie")
        return
    flags = {"*": ["secure", "samesite=none"]}
    assert settings(found, "/", "rewrite_cookies") == {"domain": {}, "path": {}, "flags": flags}
    assert line.status is Status.DIFFERENT
    assert "flags are set of all cookies" in line.words


def test_flags_behind_the_path_are_added_to_those_by_name(tmp_path: Path) -> None:
    text = (
        'location / { proxy_pass http://b; proxy_cookie_path / "/; Secure";'
        " proxy_cookie_flags a nosecure httponly; }"
    )
    found = settings(Migrated(tmp_path, site(text)), "/", "rewrite_cookies")
    assert found is not None
    assert found["flags"] == {"a": ["secure", "httponly"], "*": ["secure"]}


@pytest.mark.parametrize(
    ("directive", "status", "reason"),
    [
        ("proxy_cookie_path /a /b;", Status.DIFFERENT, "by whole segments"),
        ("proxy_cookie_path /a $upstream_http_x;", Status.LEFT_OUT, "no placeholder"),
        ("proxy_cookie_path / '/; Max-Age=1';", Status.LEFT_OUT, "no flag Max-Age=1"),
        ("proxy_cookie_domain b.test '';", Status.LEFT_OUT, "is not a domain"),
        ("proxy_cookie_flags $cookie_x secure;", Status.LEFT_OUT, "depends on the request"),
        ("proxy_cookie_flags a secure nosecure;", Status.LEFT_OUT, "exclude each other"),
        ("proxy_cookie_flags a partitioned;", Status.LEFT_OUT, "no flag partitioned"),
    ],
)
def test_cookies_that_are_not_quite_the_same_are_told(
    tmp_path: Path, directive: str, status: Status, reason: str
) -> None:
    found = Migrated(tmp_path, site(f"location / {{ proxy_pass http://b; {directive} }}"))
    line = found.line("proxy_cookie")
    assert line.status is status
    assert reason in line.words
    assert [effect.name for effect in line.effects] == ["set-cookie"]


def test_where_nothing_is_passed_on_nothing_uses_them(tmp_path: Path) -> None:
    text = "proxy_redirect http://b/ /; proxy_cookie_path / /x/; location / { root /srv; }"
    found = Migrated(tmp_path, site(text))
    assert found.filters("/") == []
    assert found.status("proxy_redirect") is Status.LEFT_OUT
    assert found.status("proxy_cookie_path") is Status.LEFT_OUT
