"""What a look at the machine brings: a thing, how it is, and what to do about it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str
    remedy: str = ""
