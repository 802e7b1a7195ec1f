"""The compiled core (`native/`, Rust) where it is installed, else its twin in Python.

The choice is made here, once, at import. A class or function with a compiled twin is written in
Python first, as the reference and as what one reads, and decorated with `twin`. `QUICEDGE_PURE=1`
chooses Python for all of them.
"""

from __future__ import annotations

import os
from enum import StrEnum
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

VARIABLE = "QUICEDGE_PURE"
"""Environment variable that chooses Python unless it is empty or 0."""

_INTERFACE = 4
"""Of the compiled core that this version of the package can use (`native/src/lib.rs`)."""

T = TypeVar("T")


class Core(StrEnum):
    """What packets pass through."""

    COMPILED = "compiled"
    PURE = "pure"


is_forced = os.environ.get(VARIABLE, "0") not in ("", "0")
"""Whether Python was chosen, whatever is installed."""


def _load() -> tuple[ModuleType | None, str]:
    """The compiled core, or None and the reason."""
    if is_forced:
        return None, f"{VARIABLE} is set"
    try:
        found = import_module("quicedge._native")
    except ModuleNotFoundError:
        return None, "not built"
    except ImportError as error:
        # For another machine or C library, or cut short.
        return None, f"cannot be loaded: {error}"
    interface = getattr(found, "INTERFACE", None)
    if interface != _INTERFACE:
        return None, f"built for another version (interface {interface}, not {_INTERFACE})"
    return found, ""


compiled, why_pure = _load()
"""The compiled core, None when Python runs instead, and why."""

core = Core.PURE if compiled is None else Core.COMPILED
"""Which of the two runs."""

PURE: dict[str, Any] = {}
"""The twins in Python by name, for tests that feed both."""


def twin(pure: T) -> T:
    """Decorator of a class or function: its compiled twin takes its place where there is one."""
    name = pure.__name__  # type: ignore[attr-defined]
    PURE[name] = pure
    return pure if compiled is None else getattr(compiled, name, pure)


def describe() -> str:
    """Which core runs, in a few words."""
    return core.value if not why_pure else f"{core.value} ({why_pure})"
