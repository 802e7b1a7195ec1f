"""The compiled core beside its twins in Python, whichever of them the edge runs on."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

from quicedge import native


def both(name: str) -> tuple[Any, Any]:
    """The twin in Python and the compiled one; skips the module where the core is not built."""
    try:
        compiled = importlib.import_module("quicedge._native")
    except ImportError as error:
        if os.environ.get("QUICEDGE_REQUIRE_PEERS") == "1":
            raise
        pytest.skip(f"the compiled core is not built: {error}", allow_module_level=True)
    return native.PURE[name], getattr(compiled, name)
