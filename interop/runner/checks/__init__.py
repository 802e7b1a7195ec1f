"""Checks of a finished trial: each takes the Evidence and raises CheckFailed with what it saw."""

from __future__ import annotations

from collections.abc import Callable

from interop.runner.evidence import Evidence

Check = Callable[[Evidence], None]
