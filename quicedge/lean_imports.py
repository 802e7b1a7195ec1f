"""Imports libraries without others that they would load and our processes never use.

structlog loads rich for tracebacks that our logs never show: 3 MB and a tenth of a second. msgspec
prefers typing_extensions to the same names of `typing`: half a megabyte. The entry points of the
edge's processes import this module before any that imports those; commands that use rich themselves
still can.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_UNUSED = {"structlog": "rich", "msgspec": "typing_extensions"}
"""Libraries, and what each can do without."""

_modules: dict[str, Any] = sys.modules


def _import_without(library: str, unused: str) -> None:
    if library in _modules or unused in _modules:
        return
    _modules[unused] = None  # makes importing it fail
    try:
        importlib.import_module(library)
    finally:
        del _modules[unused]


for _library, _unused in _UNUSED.items():
    _import_without(_library, _unused)
