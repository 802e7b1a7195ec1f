"""Writing `quicedge.toml` as a person would, with comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quicedge.migrate.document import Document, Section

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LINE = 100


def write_toml(document: Document, heading: Sequence[str] = ()) -> str:
    """The text of a configuration; `heading`: lines of the comment at its start."""
    parts = ["\n".join(_comment(heading))] if heading else []
    top = dict(document.top.keys)
    if document.filters:
        top.setdefault("filters", document.filters)
    if top:
        parts.append("\n".join([*_comment(document.top.comments), *_pairs(top)]))
    for name, section in document.sections.items():
        parts.append(_table(f"[{name}]", section))
    parts += [_table("[[tls.certificates]]", section) for section in document.certificates]
    parts += [_table("[[tls.client_auth]]", section) for section in document.client_auth]
    for name, section in document.upstreams.items():
        parts.append(_table(f"[upstreams.{_key(name)}]", section))
    parts += [_table("[[routes]]", section) for section in document.routes]
    return "\n\n".join(parts) + "\n"


def _table(head: str, section: Section) -> str:
    return "\n".join([*_comment(section.comments), head, *_pairs(section.keys)])


def _comment(lines: Sequence[str]) -> list[str]:
    return [f"# {line}".rstrip() for text in lines for line in text.splitlines() or [""]]


def _pairs(keys: Mapping[str, Any]) -> Iterator[str]:
    for key, value in keys.items():
        name = _key(key)
        line = f"{name} = {_value(value)}"
        if isinstance(value, list) and value and (len(line) > _LINE or _has_tables(value)):
            yield f"{name} = ["
            yield from (f"  {_value(item)}," for item in value)
            yield "]"
        else:
            yield line


def _has_tables(value: Sequence[Any]) -> bool:
    return any(isinstance(item, dict) for item in value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return "[" + ", ".join(map(_value, value)) + "]"


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE = re.compile(r'[\\"\x00-\x1f\x7f]')


def _string(text: str) -> str:
    """A basic string, or a literal one where backslashes would be doubled."""
    if ("\\" in text or '"' in text) and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + _UNSAFE.sub(lambda m: _ESCAPES.get(m[0], f"\\u{ord(m[0]):04x}"), text) + '"'
