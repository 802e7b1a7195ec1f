"""Escaping of untrusted text for terminals and log lines."""

from __future__ import annotations

import re


def text(value: bytes) -> str:
    """Decode octets of a message: ASCII unchanged, every other octet as `\\xNN`."""
    return value.decode("ascii", "backslashreplace")


def escape(value: str) -> str:
    """Escape unprintable characters (controls, line separators, bidi marks)."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)


def escape_json(line: bytes) -> bytes:
    """Escape characters in encoded JSON that are valid there but unsafe on a terminal.

    JSON escapes only controls below space (RFC 8259 section 7): DEL, the C1 controls, which some
    terminals interpret, line separators and bidi marks stay raw. The JSON value is unchanged.
    """
    if line.isascii():
        return line.replace(b"\x7f", b"\\u007f") if b"\x7f" in line else line
    return _NOT_ASCII.sub(_escape_match, line.decode("utf-8")).encode("utf-8")


_NOT_ASCII = re.compile("[\x7f-\U0010ffff]")


def _escape_match(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(
        f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2)
    )
