"""The result of a check: its subject, what is wrong with it, and the remedy."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str
    remedy: str = ""
