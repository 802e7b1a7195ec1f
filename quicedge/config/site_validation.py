"""Semantic validation of static sites."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quicedge.config.filterlimits import STATIC_RULES
from quicedge.config.globs import compile_glob
from quicedge.config.problems import Problem
from quicedge.config.schema import Upstream

SITE_KEYS = frozenset(
    (
        "cache_control", "clean_urls", "fallback", "index", "listing", "mime_types", "not_found",
        "precompressed",
    )
)  # fmt: skip
"""Keys of upstreams with a root."""

_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[^/.\0][^/\0]*")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(?:\s*;\s*[!-~ ]+)?")


def site_problems(where: str, site: Upstream) -> Iterator[Problem]:
    """Yield what is wrong with the keys of a static site."""
    if not site.index:
        yield Problem(f"{where}.index", "must not be empty; omit the key for index.html")
    for index, name in enumerate(site.index):
        if not _NAME.fullmatch(name):
            yield Problem(f"{where}.index[{index}]", f"{name!r} is not the name of a file")
    for key in ("fallback", "not_found"):
        path = getattr(site, key)
        if path is not None and not _PATH.fullmatch(path):
            yield Problem(f"{where}.{key}", f"{path!r} is not a path such as /{key}.html")
    if len(site.cache_control) > STATIC_RULES:
        yield Problem(f"{where}.cache_control", f"has more than {STATIC_RULES} patterns")
    for pattern, value in site.cache_control.items():
        try:
            compile_glob(pattern)
        except ValueError as error:
            yield Problem(f"{where}.cache_control.{pattern}", f"{pattern!r} {error}")
        if not _VALUE.fullmatch(value):
            yield Problem(
                f"{where}.cache_control.{pattern}", f"{value!r} is not the value of a field"
            )
    for extension, media_type in site.mime_types.items():
        place = f"{where}.mime_types.{extension}"
        if not re.fullmatch(r"[A-Za-z0-9_+-]+", extension):
            yield Problem(place, f"{extension!r} is not an extension such as wasm, without a dot")
        if not _MEDIA_TYPE.fullmatch(media_type):
            yield Problem(place, f"{media_type!r} is not a media type such as application/wasm")
