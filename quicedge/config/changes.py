"""What differs between two configurations, in the words of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import msgspec

from quicedge.config.convert import join
from quicedge.config.schema import Config

_MAX_SHOWN = 80
"""Characters of a value quoted."""

_USERINFO = re.compile(r"(?<=://)[^/@]*@")
HIDDEN = "***@"
"""Stands for the password of a URL."""


def changes(old: Config, new: Config) -> list[str]:
    """One line per changed key: `limits.max_uri: 8192 -> 4096`, `routes[2]: added`."""
    return list(_changes(old, new, ""))


def written(value: msgspec.Struct) -> dict[str, Any]:
    """A section as a file would have it: without what is as by default."""
    found = {}
    for field in msgspec.structs.fields(value):
        item = getattr(value, field.name)
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        else:
            default = field.default
        if item != default:
            found[field.name] = _written(item)
    return found


def _written(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return written(value)
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, list) else value


def without_passwords(config: Config) -> Config:
    """The configuration as it may be shown."""
    return _with_urls(config, [url and _USERINFO.sub(HIDDEN, url) for url in _urls(config)])


def with_passwords(config: Config, current: Config) -> Config:
    """The passwords of `current` in a configuration that was shown, and perhaps changed."""
    shown = _urls(without_passwords(current))
    return _with_urls(
        config,
        [
            known if url == hidden else url
            for url, hidden, known in zip(_urls(config), shown, _urls(current), strict=True)
        ],
    )


def _urls(config: Config) -> list[str | None]:
    """The values that may hold a password."""
    acme = config.tls.acme
    return [config.limits.redis, None if acme is None else acme.storage]


def _with_urls(config: Config, urls: list[str | None]) -> Config:
    redis, storage = urls
    replace = msgspec.structs.replace
    config = replace(config, limits=replace(config.limits, redis=redis))
    if config.tls.acme is None:
        return config
    return replace(config, tls=replace(config.tls, acme=replace(config.tls.acme, storage=storage)))


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, msgspec.Struct) and type(old) is type(new):
        for name in old.__struct_fields__:
            yield from _changes(getattr(old, name), getattr(new, name), join(path, name))
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _member(old.get(name), new.get(name), join(path, name))
    elif _has_tables(old) or _has_tables(new):
        for index, (was, item) in enumerate(zip_longest(old, new)):
            yield from _member(was, item, f"{path}[{index}]")
    else:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _member(old: Any, new: Any, path: str) -> Iterator[str]:
    """An item of a list or a table of tables; None: there is none."""
    if old is None:
        yield f"{path}: added"
    elif new is None:
        yield f"{path}: removed"
    else:
        yield from _changes(old, new, path)


def _has_tables(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, msgspec.Struct) for item in value)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = _USERINFO.sub(HIDDEN, msgspec.json.encode(value).decode())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
