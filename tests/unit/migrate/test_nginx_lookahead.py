"""Negative lookahead without lookahead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx.lookahead import without_lookahead
from tests.support.migrated import Migrated, site

PATTERNS = [
    r"/\.(?!well-known)", r"/\.(?!well-known\/)", r"/\.(?!well-known).*", r"/\.(?!well-known).*$",
    r"^/(?!index|in|remote|core\/ajax)", r"^/(?!api|app|admin)(.*)$", r"^/(?!a|ab|b)",
]  # fmt: skip
PIECES = ["/", ".", "well-known", "well", "index", "in", "remote", "core/ajax", "core", "api",
          "app", "a", "b", "x", "-", "w"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=6))
def test_the_same_paths_match(pattern: str, pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    expected = re.search(pattern, path)
    found = compile_pattern(without_lookahead(pattern)).search(path.encode())
    assert (found is None) == (expected is None)
    if expected is not None and expected.groups():
        assert found.group(1).decode() == expected[1]


@pytest.mark.parametrize("pattern", [r"^/(?!a)b", r"(?!\w+)x", r"^/a$", r"(?!a.b)", r"(?<!a)b"])
def test_others_stay_as_they_are(pattern: str) -> None:
    assert without_lookahead(pattern) == pattern


@pytest.mark.parametrize(
    ("path", "status"),
    [("/.git/config", 403), ("/a/.env", 403), ("/.well-known/x", 204), ("/", 204),
     ("/.well-known/.git", 403), ("/.w", 403)],
)  # fmt: skip
def test_hidden_files_but_well_known_ones_are_denied(
    tmp_path: Path, path: str, status: int
) -> None:
    pytest.importorskip("crossplane")
    text = r"location ~ /\.(?!well-known) { deny all; } location / { return 204; }"
    assert Migrated(tmp_path, site(text)).answer(path)["status"] == status
