"""The result of a check: subject, message and remedy."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Finding(Struct, frozen=True):
    """One checked subject."""

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str
    remedy: str = ""
