"""Patterns for paths of files: `*.html`, `/assets/*`, `/docs/**`."""

from __future__ import annotations

import re
from typing import Any

from quicedge.config.patterns import compile_pattern

_PART = re.compile(r"\*\*|\*|\?|[^*?]+")
_MEANINGS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def compile_glob(text: str) -> Any:
    """The pattern as a regular expression for whole paths; raises ValueError.

    `*` and `?` stand for anything but a slash, `**` for anything. A pattern without a slash is one
    for names, in any directory.
    """
    parts = [_MEANINGS.get(part) or re.escape(part) for part in _PART.findall(text)]
    start = "" if text.startswith("/") else "(?:.*/)?" if "/" in text else ".*/"
    return compile_pattern(f"^{start}{''.join(parts)}$")
