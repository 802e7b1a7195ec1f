"""The result of a check: subject, message and remedy."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


class Finding(Struct, frozen=True):
    """One checked subject."""

    level: Level
    subject: str
    message: str
    remedy: str = ""
