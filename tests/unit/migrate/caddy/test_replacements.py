"""`header_down FIELD SEARCH REPLACE`: what can be said of it, and what the report says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.migrate.caddy.translate import translate_caddyfile
from quicedge.migrate.report import Line, Status
from tests.support.filtered import World, toml


def translated(tmp_path: Path, *lines: str) -> tuple[list[dict[str, Any]], list[Line]]:
    """The filters of the only route, and the report."""
    path = tmp_path / "Caddyfile"
    block = "\n".join(f"\t\theader_down {line}" for line in lines)
    path.write_text(f"a.test {{\n\treverse_proxy b:1 {{\n{block}\n\t}}\n}}\n")
    found = translate_caddyfile(path)
    (route,) = found.document.routes
    return route.keys.get("filters", []), found.report


def answered(filters: list[dict[str, Any]], name: bytes, value: str) -> list[str]:
    """What clients get of a field of an origin."""
    here = World(f"[[routes]]\nupstream = 'app'\nfilters = {toml(filters)}")
    client = here.send()
    here.origin.respond(302, {name: value.encode()})
    return [line.decode() for line in client.values(name)]


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("^http: https:", "http://c.test/x", "https://c.test/x"),
        (r"^http://b\.test(.*)$ https://{host}$1", "http://b.test/x", "https://a.test/x"),
        (r"^https?://([^/.]+)[^/]*/(.*) https://{host}/${1}/$2", "http://c.in/x", "https://a.test/c/x"),
        (r"^http://(?P<name>[a-z]+)/ /$name/", "http://b/x", "/b/x"),
        (r":80(/|$) $1", "http://b:80/x", "http://b/x"),
        ("/old/ /new/", "https://c.test/a/old/b", "https://c.test/a/new/b"),
        ("(?i)^HTTP: https:", "http://c.test/", "https://c.test/"),
        ("^http: https:", "https://c.test/", "https://c.test/"),
    ],
)  # fmt: skip
async def test_what_is_replaced_in_a_location(
    tmp_path: Path, rule: str, value: str, expected: str
) -> None:
    search, new = rule.split()
    filters, report = translated(tmp_path, f'Location "{search}" "{new}"')
    assert answered(filters, b"location", value) == [expected]
    proxy = next(line for line in report if line.text.startswith("reverse_proxy"))
    # Caddy replaces all matches, and there is one at the start at most.
    exact = search.startswith(("^", "(?i)^"))
    assert proxy.status is (Status.TRANSLATED if exact else Status.DIFFERENT)
    assert any(effect.name == "location" for effect in proxy.effects) is not exact


@pytest.mark.parametrize(
    ("search", "new", "value", "expected"),
    [
        (r"(?i)domain=b\.test", "Domain={host}", "a=1; Domain=B.test", "a=1; Domain=a.test"),
        (r"Domain=b", "Domain=c", "a=1; Domain=b.test", "a=1; Domain=c.test"),
        (r"Path=/app", "Path=/", "a=1; Path=/app; Secure", "a=1; Path=/; Secure"),
        (r"; Path=/app;", "; Path=/;", "a=1; Path=/apple", "a=1; Path=/apple"),
        ("$", "; Secure; SameSite=Lax", "a=1", "a=1; Secure; SameSite=Lax"),
        ("(.*)", "$1; HttpOnly", "a=1; Path=/", "a=1; Path=/; HttpOnly"),
    ],
)  # fmt: skip
async def test_what_is_replaced_in_cookies(
    tmp_path: Path, search: str, new: str, value: str, expected: str
) -> None:
    filters, _ = translated(tmp_path, f'Set-Cookie "{search}" "{new}"')
    assert answered(filters, b"set-cookie", value) == [expected]


@pytest.mark.parametrize(
    ("rule", "field", "reason"),
    [
        ("X-Thing a b", "x-thing", "replacing a part of a value"),
        ("Location {http.request.host} b", "location", "a search that depends on the request"),
        (r"Location ^http: {http.request.uuid.x}", "location", "no placeholder"),
        (r"Location (?<!a)b c", "location", "the regular expression"),
        (r"Location a \b", "location", "an escape"),
        ("Set-Cookie a=1 a=2", "set-cookie", "not their domain, path or flags"),
        ('Set-Cookie (.*) "x; Secure"', "set-cookie", "changing the value of cookies"),
        ('Set-Cookie $ "; Max-Age=1"', "set-cookie", "no flag Max-Age=1"),
        ("Set-Cookie Path=/(a) Path=/$1", "set-cookie", "groups in attributes"),
    ],
)
def test_what_cannot_be_said_is_left_out_where_it_can_be_seen(
    tmp_path: Path, rule: str, field: str, reason: str
) -> None:
    filters, report = translated(tmp_path, "-Server", rule)
    assert [next(iter(item)) for item in filters] == ["headers"]
    line = next(line for line in report if line.text.startswith(f"header_down {rule.split()[0]}"))
    assert line.status is Status.LEFT_OUT
    assert reason in line.words
    assert [effect.name for effect in line.effects] == [field]


async def test_of_several_rules_the_first_that_matches_counts(tmp_path: Path) -> None:
    filters, report = translated(tmp_path, "Location ^http: https:", "Location /a/ /b/")
    assert answered(filters, b"location", "http://c.test/a/") == ["https://c.test/a/"]
    proxy = next(line for line in report if line.text.startswith("reverse_proxy"))
    assert "the first rule that matches counts" in proxy.words


def test_a_site_replaces_only_what_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "Caddyfile"
    path.write_text("a.test {\n\theader Location ^http: https:\n\treverse_proxy b:1\n}\n")
    (route,) = translate_caddyfile(path).document.routes
    # Without `defer` Caddy changes fields before there are any.
    assert "filters" not in route.keys
    later = "header {\n\t\tLocation ^http: https:\n\t\tdefer\n\t}"
    path.write_text(f"a.test {{\n\t{later}\n\treverse_proxy b:1\n}}\n")
    found = translate_caddyfile(path)
    (route,) = found.document.routes
    assert [next(iter(item)) for item in route.keys["filters"]] == ["rewrite_location"]
    header = next(line for line in found.report if line.text.startswith("header"))
    assert "in responses of origins alone" in header.words
