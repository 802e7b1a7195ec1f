"""Imports structlog without rich, which it would load for tracebacks that our logs never show.

Rich costs a process 3 MB and a tenth of a second. The entry points of the edge's processes import
this module before any that imports structlog; commands that use rich themselves still can.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules

if "structlog" not in _modules and "rich" not in _modules:
    _modules["rich"] = None  # makes `import rich` fail
    try:
        import structlog  # noqa: F401
    finally:
        del _modules["rich"]
