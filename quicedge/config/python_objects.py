"""Objects of the operator's own Python code, which a configuration names `module:attribute`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
REFERENCE = f"{_NAME}:{_NAME}"
"""The pattern of such a name."""

_OURS = str(Path(__file__).parents[1])
_IMPORTLIB = str(Path(importlib.__file__).parent)


def find_object(reference: str, directory: str | None) -> Any:
    """Import the module, from `directory` too, and return the object.

    Raises whatever the code raises, even SystemExit, and AttributeError if there is no such object.
    """
    module, _, attributes = reference.partition(":")
    if directory is not None and directory not in sys.path:
        sys.path.insert(0, directory)
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def describe_failure(error: BaseException) -> str:
    """What the operator's code has raised, and in which of its lines."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"{said} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", _OURS, _IMPORTLIB))
    ]
    return f"{said} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else said
