"""Finds the class of a filter written in Python, and builds its object."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from quicedge.config.filters import Python
from quicedge.config.python_objects import describe_failure, find_object
from quicedge.config.unusable import UnusableError
from quicedge.filters import Filter
from quicedge.proxy.filters.python import PythonFilter
from quicedge.proxy.filters.resources import Resources
from quicedge.proxy.filters.route_filter import RouteFilter

ENTRY_POINTS = "quicedge.filters"
"""The group in which installed packages name their filters."""

_loaded: dict[str, dict[str, int]] = {}
"""For each package that filters were imported from, the files of its modules and their times of
modification, in nanoseconds."""


def build_filter(settings: Python, where: str) -> Filter:
    """The object of a filter class; raises UnusableError with `where` and what is wrong."""
    name = settings.filter
    key = f"{where}.filter"
    try:
        found = _load(settings)
    except BaseException as error:  # even SystemExit: it would end the worker without a word
        raise UnusableError(key, f"{name}: {describe_failure(error)}") from error
    if not (inspect.isclass(found) and issubclass(found, Filter)):
        raise UnusableError(key, f"{name} is no subclass of quicedge.filters.Filter")
    if inspect.iscoroutinefunction(found.on_done):
        raise UnusableError(key, f"{name}.on_done must not be a coroutine function")
    try:
        inspect.signature(found).bind(**settings.options)
    except TypeError as error:
        raise UnusableError(f"{where}.options", f"{name}: {error}") from error
    try:
        return found(**settings.options)
    except BaseException as error:
        raise UnusableError(f"{where}.options", f"{name}: {describe_failure(error)}") from error


def build(given: Python, where: str, resources: Resources) -> Iterator[RouteFilter]:
    """The filter of an entry; raises UnusableError."""
    yield PythonFilter(
        given.filter,
        build_filter(given, where),
        given.timeout,
        tell_underscores=resources.tell_underscores,
    )


def _load(settings: Python) -> Any:
    """What the name of a filter stands for, from code as it is now."""
    name = settings.filter
    point = None if ":" in name else _entry_point(name)
    package = (name if point is None else point.module).partition(":")[0].partition(".")[0]
    with _fresh(package):
        found = find_object(name, settings.directory) if point is None else point.load()
    _loaded[package] = _times(package)
    return found


def _entry_point(name: str) -> EntryPoint:
    found = entry_points(group=ENTRY_POINTS, name=name)
    if not found:
        known = sorted(entry_points(group=ENTRY_POINTS).names)
        others = f"; installed: {', '.join(known)}" if known else ""
        raise LookupError(f"no installed package has a filter of this name{others}")
    return next(iter(found))


@contextmanager
def _fresh(package: str) -> Iterator[None]:
    """Import a package anew if its files have changed since its filters were imported.

    Running filters keep their modules. If the import fails, what was there is put back.
    """
    known = _loaded.get(package)
    if known is None or known == _times(package):
        yield
        return
    importlib.invalidate_caches()
    previous = {name: sys.modules.pop(name) for name in _modules(package)}
    try:
        yield
    except BaseException:
        for name in _modules(package):
            del sys.modules[name]
        sys.modules.update(previous)
        raise


def _modules(package: str) -> dict[str, ModuleType]:
    return {
        name: module
        for name, module in list(sys.modules.items())
        if name == package or name.startswith(f"{package}.")
    }


def _times(package: str) -> dict[str, int]:
    times = {}
    for module in _modules(package).values():
        path = getattr(module, "__file__", None)
        if path is not None:
            try:
                times[path] = os.stat(path).st_mtime_ns
            except OSError:
                times[path] = 0
    return times
