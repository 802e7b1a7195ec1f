r"""Regular expressions of the configuration: RE2's, which take linear time whatever they are fed.

Python's own backtrack: `^(a+)+$` takes minutes for forty characters that a client chooses. RE2 has
no backreferences and no lookaround; all else is as in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from quicedge.config.filterlimits import PATTERN_MAX_LENGTH, PATTERN_MEMORY

_REFERENCE = re.compile(r"\\(\d|g<[^>]*>)")


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Any:
    """A compiled expression for bytes; ValueError describes what is wrong."""
    import re2

    if len(text) > PATTERN_MAX_LENGTH:
        raise ValueError(f"has more than {PATTERN_MAX_LENGTH} characters")
    if not text.isascii():
        raise ValueError("is not ASCII; write other characters percent-encoded, as clients do")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, bytes):
            reason = reason.decode("ascii", "replace")
        raise ValueError(f"is not a regular expression of RE2: {reason}") from None


class Group(NamedTuple):
    """A group of a regular expression, by its number or its name."""

    key: int | bytes


def replacement_parts(text: str) -> Iterator[str | Group]:
    r"""The parts of a replacement: text, and the groups that `\1` and `\g<name>` stand for."""
    at = 0
    for match in _REFERENCE.finditer(text):
        if at < match.start():
            yield text[at : match.start()]
        name = match[1] if match[1].isdigit() else match[1][2:-1]
        yield Group(int(name) if name.isdigit() else name.encode())
        at = match.end()
    if at < len(text):
        yield text[at:]


def check_replacement(pattern: Any, replacement: str) -> None:
    r"""Raise ValueError unless the groups that a replacement names (`\1`) exist."""
    for match in _REFERENCE.finditer(replacement):
        name = match[1]
        if name.isdigit():
            if int(name) > pattern.groups:
                raise ValueError(f"names the group {name}, but the pattern has {pattern.groups}")
        elif (name := name[2:-1]).encode() not in pattern.groupindex and not name.isdigit():
            raise ValueError(f"names the group {name!r}, which the pattern does not have")
