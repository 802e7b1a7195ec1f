"""Lookaheads of PCRE, said without."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from quicedge.config.patterns import compile_pattern
from quicedge.migrate.nginx.lookahead import without_lookahead
from quicedge.migrate.nginx.matching import pattern_of
from quicedge.migrate.nginx.variables import UnsayableError
from tests.support.migrated import Migrated, site

_TEXTS = [
    "".join(letters)
    for length in range(6)
    for letters in itertools.product("/.abA", repeat=length)
]  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    [
        r"/\.(?!ab)",
        r"^/(?!a|ab|b)",
        r"/\.(?!ab\/)",
        r"/\.(?!ab).*",
        r"/\.(?!ab|b/)",
        r"^/(?!a|ab)(.*)$",
        r"^/(?!a(?:/|$)).*$",
        r"^/((?!ab?).*)$",
        r"^/(?!a)(?!b).+",
        r"^(/a(?![ab]\.).*)$",
        r"(?i)^/(?!ab)(.*)",
        r"^/(?!(a|b)/)(.*)$",
        r"^/(?!a.*)",
        r"^/(?!$)",
        r"/a(?=/|$)",
        r"^/(?:a|b(?!a).*)$",
    ],
)
def test_an_expression_with_a_lookahead_matches_the_same_paths_and_captures_without_it(
    pattern: str,
) -> None:
    spelled_out = compile_pattern(without_lookahead(pattern))
    for text in _TEXTS:
        wanted = re.search(pattern, text)
        found = spelled_out.search(text.encode())
        assert (found is None) == (wanted is None), text
        if wanted is not None and found is not None:
            captures = [(group or b"").decode() for group in found.groups()]
            assert captures == [group or "" for group in wanted.groups()], text


@pytest.mark.parametrize(
    "pattern",
    [
        r"^/(?!.+\.b)",
        r"^/(?!a\b)",
        r"^/(?!a+)",
        r"^/(?!a).*\.php$",
        r"^(/\.(?!a))b",
        r"^/x(?!a)|^/y",
        r"^/(?!)",
        r"(?<!a)b$",
        r"^/(?=a)b",
        r"^/(?!" + "[abcdefghij]" * 2 + ")",
    ],
)
def test_a_lookahead_that_cannot_be_spelled_out_is_not_guessed(pattern: str) -> None:
    with pytest.raises(UnsayableError):
        pattern_of(pattern)


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
