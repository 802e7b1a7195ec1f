"""The choice of a location, as nginx makes it."""

from __future__ import annotations

import pytest

from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.verify.locations import chain_for
from quicedge.migrate.verify.pattern_sample import sample_of


def location(*args: str, inside: list[Directive] | None = None) -> Directive:
    return Directive("location", list(args), "nginx.conf", 1, inside or [])


SERVER = Directive("server", [], "nginx.conf", 1, [
    location("/"),
    location("/app/", inside=[location("/app/deep/"), location("~", r"\.txt$")]),
    location("^~", "/static/"),
    location("=", "/exact"),
    location("~", r"\.php$"),
    location("~*", r"\.(png|jpg)$"),
    location("@named"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("/", ["/"]),
        ("/app", ["/"]),
        ("/app/x", ["/app/"]),
        ("/app/deep/x", ["/app/", "/app/deep/"]),
        ("/app/a.txt", ["/app/", r"~ \.txt$"]),
        ("/app/a.PNG", [r"~* \.(png|jpg)$"]),
        ("/static/a.png", ["^~ /static/"]),
        ("/exact", ["= /exact"]),
        ("/exact/", ["/"]),
        ("/a.php", [r"~ \.php$"]),
        ("/a.PHP", ["/"]),
        ("@named", []),
    ],
)
def test_exact_then_longest_prefix_then_the_first_pattern(path, chosen):
    assert [" ".join(one.args) for one in chain_for(SERVER, path)] == chosen


@pytest.mark.parametrize(
    "pattern",
    [
        r"\.php$", r"\.(?:jpg|png)$", r"^/(api|v1)/", r"^/users/(\d+)/(.*)$",
        r"^/(?<lang>[a-z]{2})/", r"^/(?!admin)", r"[^/]+\.x", r"^/a(b|c)?d$", r"(?i)\.GIF$",
        r"^(?P<name>[\w-]+)\.example\.com$",
    ],
)  # fmt: skip
def test_a_pattern_of_a_configuration_has_a_sample(pattern):
    assert sample_of(pattern, ignore_case="(?i)" in pattern) is not None


@pytest.mark.parametrize("pattern", ["(", "[", r"^(a)\1b{2}c(?=d)e$"])
def test_a_pattern_that_is_beyond_us_has_none(pattern):
    assert sample_of(pattern) is None
