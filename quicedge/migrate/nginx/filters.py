"""Filters as they are written in `quicedge.toml`."""

from __future__ import annotations

from typing import Any

from quicedge.http.phrases import reason_phrase

Filter = dict[str, Any]
"""Its kind, and its settings."""


def error_answer(status: int) -> Filter:
    """An error whose content is its status in words."""
    return {"respond": {"status": status, "body": f"{status} {reason_phrase(status)}\n"}}
