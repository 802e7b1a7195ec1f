"""Compression: `gzip`, `brotli` and `zstd`."""

from __future__ import annotations

import re
from typing import Any

from quicedge.migrate.nginx import visible
from quicedge.migrate.nginx.scope import Scope
from quicedge.migrate.nginx.values import number_of, size_of
from quicedge.migrate.nginx.world import World

_MODULES = (("zstd", "zstd"), ("brotli", "br"), ("gzip", "gzip"))
_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_LEVELS = {"zstd": ("zstd_level", 12), "brotli": ("brotli_level", 9), "gzip": ("gzip_level", 9)}


def compression(scope: Scope, world: World) -> list[dict[str, Any]]:
    """The filter `compress`, if anything is on."""
    note = world.notebook
    on = [(module, coding) for module, coding in _MODULES if scope.is_on(module)]
    for module, _ in _MODULES:
        note.translated(scope.last(module))
    if not on:
        return []
    if not scope.is_on("gzip_vary"):
        for module, _ in on:
            directive = scope.last(module)
            if directive is not None:
                note.different(directive, "vary is always sent", *visible.client("vary"))
    types = ["text/html"]
    sizes: list[int] = []
    found: dict[str, Any] = {"encodings": [coding for _, coding in on]}
    for module, _ in on:
        listed = scope.last(f"{module}_types")
        if listed is not None and "*" in listed.args:
            words = "all types that gain by compression"
            note.different(listed, words, *visible.client("content-encoding", "vary", "etag"))
            types = []
        elif listed is not None:
            names = [name for name in listed.args if _TYPE.fullmatch(name)]
            if len(names) < len(listed.args):
                note.different(listed, "without what is no media type")
            else:
                note.translated(listed)
            types += [name for name in names if name not in types] if types else []
        shortest = scope.last(f"{module}_min_length")
        sizes.append(20 if shortest is None else size_of(shortest))
        note.translated(shortest)
        level = scope.last(f"{module}_comp_level")
        if level is not None:
            key, most = _LEVELS[module]
            found[key] = min(max(number_of(level), 1 if module != "brotli" else 0), most)
            note.translated(level)
        vary = scope.last(f"{module}_vary")
        if vary is not None:
            note.different(vary, "where it is compressed", *visible.client("vary"))
        note.translated(scope.last(f"{module}_proxied"), "whoever has asked")
    if types:
        found["types"] = types
    found["min_size"] = min(sizes)
    if {"br", "zstd"} & set(found["encodings"]):
        world.supply("pip install 'quicedge[compression]'")
    return [{"compress": found}]
