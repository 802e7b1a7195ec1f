"""nginx's order of locations, kept by the routes that they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.migrate.effects import Aspect, Effect, Side
from quicedge.migrate.report import Status
from tests.support.migrated import Migrated, site

pytest.importorskip("crossplane")


def answers(text: str) -> str:
    """`location ... -> NAME` lines as locations that answer with their name."""
    lines = []
    for line in text.strip().splitlines():
        location, _, name = line.strip().partition(" -> ")
        lines.append(f'location {location} {{ return 200 "{name}"; }}')
    return "\n".join(lines)


EXAMPLE = answers(
    r"""
    = / -> A
    / -> B
    /documents/ -> C
    ^~ /images/ -> D
    ~* \.(gif|jpg|jpeg)$ -> E
    """
)
"""The example of nginx's documentation of `location`."""


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/", "A"),
        ("/index.html", "B"),
        ("/documents/document.html", "C"),
        ("/images/1.gif", "D"),
        ("/documents/1.jpg", "E"),
        ("/1.JPEG", "E"),
        ("/documents", "B"),
        ("/images", "B"),
    ],
)
def test_the_example_of_the_documentation(tmp_path: Path, path: str, chosen: str) -> None:
    assert Migrated(tmp_path, site(EXAMPLE)).answer(path)["body"] == chosen


MANY = (
    answers(
        r"""
    = /exact -> exact
    /exact -> below-exact
    /a/ -> a
    /a/b/ -> ab
    ^~ /a/b/c/ -> abc
    ~ ^/a/.*\.php$ -> a-php
    ~ \.php$ -> php
    ~* ^/A/x -> ax
    /wp- -> wp
    """
    )
    + """
    location /nested/ {
      location /nested/deep/ { return 200 nested-deep; }
      location ~ \\.txt$ { return 200 nested-txt; }
      return 200 nested;
    }
    location ^~ /quiet/ {
      location ~ \\.txt$ { return 200 quiet-txt; }
      location /quiet/deep/ { return 200 quiet-deep; }
      return 200 quiet;
    }
    location ~ ^/user/(\\d+)$ { return 200 "user $1"; }
    location ~ ^/(?<page>p\\d)/ { return 200 "page $page"; }
    location ~ ^/both/ { location ~* \\.(?:png|jpe?g)$ { return 200 image; } return 200 both; }
    """
)


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/exact", "exact"),
        ("/exact/more", "below-exact"),
        ("/a/one", "a"),
        ("/a/one.php", "a-php"),
        ("/one.php", "php"),
        ("/one.PHP", "404"),
        ("/a/b/one", "ab"),
        ("/a/b/one.php", "a-php"),
        ("/a/b/c/one.php", "abc"),
        ("/a/x.html", "ax"),
        ("/a/b/c/x", "abc"),
        ("/wp-admin", "wp"),
        ("/wp-login.php", "php"),
        ("/wp", "404"),
        ("/nested/", "nested"),
        ("/nested/one.txt", "nested-txt"),
        ("/nested/deep/one", "nested-deep"),
        ("/nested/one.php", "php"),
        ("/nested/deep/one.php", "php"),
        ("/quiet/one.php", "quiet"),
        ("/quiet/one.txt", "quiet-txt"),
        ("/quiet/deep/one", "quiet-deep"),
        ("/quiet/deep/one.php", "quiet-deep"),
        ("/user/12", "user {match.1}"),
        ("/p3/x", "page {match.page}"),
        ("/both/x.jpeg", "image"),
        ("/both/x", "both"),
        ("/other", "404"),
    ],
)
def test_nginx_s_order_of_choice(tmp_path: Path, path: str, chosen: str) -> None:
    answer = Migrated(tmp_path, site(MANY)).answer(path)
    assert (answer.get("body") if answer["status"] == 200 else str(answer["status"])) == chosen


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/api", "api"), ("/api/x", "api"), ("/apis", "api"), ("/api.php", "php"),
        ("/api/x.php", "php"), ("/ap", "other"), ("/img", "img"), ("/imgs.php", "img"),
        ("/img/x.php", "img"), ("/api/v2", "v2"), ("/api/v2/x", "v2"), ("/api/v22", "v2"),
        ("/api/v", "api"), ("/nested.txt", "txt"), ("/nested/a.txt", "txt"), ("/nestedx", "nested"),
    ],
)  # fmt: skip
def test_a_prefix_covers_what_begins_with_it_within_a_segment_too(
    tmp_path: Path, path: str, chosen: str
) -> None:
    text = answers(
        r"""
        /api -> api
        /api/v2 -> v2
        ^~ /img -> img
        ~ \.php$ -> php
        / -> other
        """
    )
    text += "location /nested { location ~* \\.txt$ { return 200 txt; } return 200 nested; }"
    found = Migrated(tmp_path, site(text))
    assert found.answer(path)["body"] == chosen
    assert found.status("location /api") is Status.TRANSLATED


def test_a_location_that_protects_covers_what_it_covers_in_nginx(tmp_path: Path) -> None:
    text = "location / { proxy_pass http://127.0.0.1:1; }"
    text += "location /admin { deny all; proxy_pass http://127.0.0.1:1; }"
    found = Migrated(tmp_path, site(text))
    for path in ("/admin", "/admin/x", "/administration", "/admin.php"):
        assert found.answer(path)["status"] == 403, path
    assert found.route("/adm").upstream == "local-1"


def test_rewrites_of_the_server_precede_all_locations(tmp_path: Path) -> None:
    text = "rewrite ^/old$ /new permanent;\nlocation = /old { return 200 old; }"
    text += "location /other/ { return 200 other; }"
    found = Migrated(tmp_path, site(text))
    assert found.answer("/old") == {"to": "/new{?query}", "status": 301}
    assert found.answer("/other/")["body"] == "other"


def test_a_pattern_that_re2_has_not_is_left_out_with_its_reason(tmp_path: Path) -> None:
    found = Migrated(tmp_path, site(r"location ~ ^/(?!api)x { return 200 x; }"))
    line = found.line("location ~")
    assert line.status is Status.LEFT_OUT
    assert "RE2" in line.words


@pytest.mark.parametrize(
    "block", ["location ~ ^/(?!open)x { deny all; }", "if (-f /closed) { return 403; }"]
)
def test_protection_that_is_lost_is_something_to_do(tmp_path: Path, block: str) -> None:
    found = Migrated(tmp_path, site(f"{block} root /srv;"))
    assert any("refuses requests" in text for text in found.translation.to_supply)
    found = Migrated(
        tmp_path,
        site(f"{block.replace('deny all', 'expires 1h').replace('403', '204')} root /srv;"),
    )
    assert not any("refuses requests" in text for text in found.translation.to_supply)


@pytest.mark.parametrize(
    "location",
    [r"location ~ ^/a/(?!b)(.+)x$", "location ~ ^/(a)", "location /\u00e9"],
    ids=["no-route", "inner", "no-path"],
)
def test_a_location_that_is_left_out_tells_that_all_of_its_requests_may_differ(
    tmp_path: Path, location: str
) -> None:
    inner = "location ~ ^/a/b { return 204; }" if location.endswith("(a)") else "return 204;"
    found = Migrated(tmp_path, site(f"{location} {{ {inner} }} location / {{ return 200; }}"))
    start = "location ~ ^/a/b" if location.endswith("(a)") else "location"
    effects = found.line(start).effects
    for side in Side:
        assert Effect(side, Aspect.HEADER) in effects
    assert Effect(Side.CLIENT, Aspect.BODY) in effects
    assert Effect(Side.ORIGIN, Aspect.TARGET) in effects
