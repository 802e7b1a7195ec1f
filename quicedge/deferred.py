"""Imports a library without modules that it imports itself and our processes seldom use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

_modules: dict[str, Any] = sys.modules


class Deferred(ModuleType):
    """Stands for a module that is imported when something of it is used.

    All that a library may take from it while the library itself is imported are functions: it gets
    functions that call them.
    """

    is_ready = False
    """The library has been imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.is_ready:
            return getattr(importlib.import_module(self.__name__), name)
        return _deferred_function(self.__name__, name)


def _deferred_function(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = None

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal found
        if found is None:
            found = getattr(importlib.import_module(module), name)
        return found(*arguments, **named)

    return call


def import_with(library: str, stand_ins: Mapping[str, ModuleType | None]) -> None:
    """Import a library, unless it is imported, with others in place of modules that are not; None
    makes the import of a module fail."""
    if library in _modules:
        return
    placed = {name: module for name, module in stand_ins.items() if name not in _modules}
    _modules.update(placed)
    try:
        importlib.import_module(library)
    finally:
        for name, module in placed.items():
            del _modules[name]
            if isinstance(module, Deferred):
                module.is_ready = True


def import_without(library: str, *deferred: str) -> None:
    """Import a library, unless it is imported, and defer modules that are not."""
    import_with(library, {name: Deferred(name) for name in deferred})
