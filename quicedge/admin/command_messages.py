"""Messages on the control socket, between the edge and the commands that an operator runs.

Each connection carries one request and one reply, JSON in one line each. The edge keeps the
connection open until it has ended when the reply says so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct


class Command(StrEnum):
    """What an operator can ask for."""

    RELOAD = "reload"
    VALIDATE = "validate"
    """Everything that a reload does, up to the point where it would change something."""
    UPGRADE = "upgrade"
    STATUS = "status"
    RENEW = "renew"
    """Order certificates by ACME now: those named in the arguments, or all."""
    LEAVE = "leave"
    """End, and leave the workers to the next supervisor, which replaces them."""
    STOP = "stop"
    STOP_NOW = "stop-now"


class CommandRequest(Struct, frozen=True):
    command: str
    """A `Command`; a newer program may send one that this one does not know."""
    arguments: list[str] = []


class CommandReply(Struct, frozen=True, kw_only=True):
    """`error` says why it failed; else `lines` are for people and `data` is for programs."""

    lines: list[str] = []
    error: str | None = None
    data: Any = None
    pid: int = 0
    """Of the supervisor that answers."""
