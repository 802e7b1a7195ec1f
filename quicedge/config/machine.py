"""What a configuration requires of this machine: directories and optional libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from quicedge.config.problems import Problem
from quicedge.config.schema import Config

_OTEL_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_REDIS_MODULES = ("limits", "redis")


def missing(config: Config) -> Iterator[Problem]:
    """Missing directories and libraries."""
    yield from missing_directories(config)
    yield from missing_libraries(config)


def missing_directories(config: Config) -> Iterator[Problem]:
    """Directories that are served or written to."""
    for name, upstream in config.upstreams.items():
        if upstream.root is not None and not Path(upstream.root).is_dir():
            yield Problem(f"upstreams.{name}.root", f"{upstream.root} is not a directory")
    directory = config.qlog.directory
    if directory is not None and not Path(directory).is_dir():
        yield Problem("qlog.directory", f"{directory} is not a directory")


def missing_libraries(config: Config) -> Iterator[Problem]:
    """Libraries that an optional extra installs."""
    if config.limits.redis is not None and not _are_installed(_REDIS_MODULES):
        yield Problem("limits.redis", "requires `pip install 'quicedge[redis]'`")
    if config.otel.enabled and not _are_installed(_OTEL_MODULES):
        yield Problem("otel.enabled", "requires `pip install 'quicedge[otel]'`")


def _are_installed(modules: tuple[str, ...]) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False  # a parent package is missing
