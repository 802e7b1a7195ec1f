"""Imports a library without modules that it imports itself and our processes seldom use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
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
        return _DeferredFunction(self.__name__, name)


class _DeferredFunction:
    """Calls a function of a module that is imported then."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    @cached_property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self._module), self._name)
        return function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)


def deferred_base(module: str, name: str) -> type:
    """A class for a library to derive others from. When one of these is first used, the class of a
    module that is imported then takes its place."""

    class Base:
        def __new__(cls, *_: Any, **__: Any) -> Any:
            base = getattr(importlib.import_module(module), name)
            for derived in Base.__subclasses__():
                derived.__bases__ = tuple(base if one is Base else one for one in derived.__bases__)
            return object.__new__(cls)

    return Base


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


def import_without_part(package: str, part: str) -> None:
    """Import a package, unless it is imported, that hands on names of a module of its own, which is
    imported when one of them is asked for."""
    if package in _modules or part in _modules:
        return
    import_without(package, part)
    module = _modules[package]
    # `cryptography` wraps modules in which something is deprecated.
    names = getattr(module, "_module", module).__dict__
    handed_on = {name for name, value in names.items() if isinstance(value, _DeferredFunction)}

    def get(name: str) -> Any:
        if name not in handed_on:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(part), name)

    for name in handed_on:
        del names[name]
    names["__getattr__"] = get
