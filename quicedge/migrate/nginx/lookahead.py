r"""Lookaheads of PCRE as RE2, which has none, can say them.

`/\.(?!well-known)` keeps dot files private in half of all configurations. Where nothing but `.*`
stands behind a lookahead, the texts that it forbids can be spelled out: not to begin with `ab` is
the end, or another letter than `a`, or `a` and then the end or another letter than `b`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAX_WORDS = 64
"""Texts that one lookahead is spelled out for."""

_END = ""
"""A `$` in a word."""

_Word = tuple[str, ...]
"""Characters, and perhaps _END behind them."""

_Tree = dict[str, "_Tree"]
"""Words by their first characters; a word ends where a tree is empty."""

_ANYTHING = re.compile(r"(?P<open>\(?)\.(?P<times>[*+])(?P<rest>\)*\$?)")
"""What stands behind a lookahead: `.*`, in a group or at the end of one."""


class _NotSpelledOutError(Exception):
    """A lookahead forbids more than a few words."""


def without_lookahead(pattern: str) -> str:
    """The same expression without its lookahead; as it is if that cannot be said."""
    start = _first_lookahead(pattern)
    if start is None:
        return pattern
    end = _end_of_group(pattern, start)
    before, inside = pattern[:start], [pattern[start + 3 : end - 1]]
    if pattern.startswith("(?=", start):
        return f"{before}(?:{inside[0]})" if end == len(pattern) else pattern
    while pattern.startswith("(?!", end):
        start, end = end, _end_of_group(pattern, end)
        inside.append(pattern[start + 3 : end - 1])
    tail = _ANYTHING.fullmatch(pattern, end)
    if tail is None and end < len(pattern):
        return pattern
    try:
        words = [word for text in inside for word in _words(text)]
    except _NotSpelledOutError:
        return pattern
    if pattern.startswith("(?i)"):
        words = [tuple(letter.lower() for letter in word) for word in words]
    other = _anything_but(_tree(words), may_end=tail is None or tail["times"] == "*")
    if other is None:
        return pattern
    # Groups of a lookahead that forbids count, and are empty.
    groups = "()" * sum(len(_GROUP.findall(text)) for text in inside)
    if tail is None:
        return f"{before}{groups}{other}"
    return f"{before}{groups}{tail['open']}{other}.*{tail['rest']}"


_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?[=!])?|.", re.DOTALL)
_GROUP = re.compile(r"(?<!\\)\((?!\?)")


def _first_lookahead(pattern: str) -> int | None:
    return next((m.start() for m in _TOKEN.finditer(pattern) if m[0] in ("(?=", "(?!")), None)


def _end_of_group(pattern: str, start: int) -> int:
    """Where the group that begins there has ended."""
    depth = 0
    for token in _TOKEN.finditer(pattern, start):
        depth += {"(": 1, ")": -1}.get(token[0][0], 0)
        if depth == 0:
            return token.end()
    return len(pattern)


def _words(text: str) -> list[_Word]:
    """All that an expression matches; raises _NotSpelledOutError."""
    words, end = _alternatives(text, 0)
    if end < len(text):
        raise _NotSpelledOutError
    return words


def _alternatives(text: str, at: int) -> tuple[list[_Word], int]:
    """The words of what stands before a closing parenthesis, and where that is."""
    found, at = _sequence(text, at)
    while text.startswith("|", at):
        more, at = _sequence(text, at + 1)
        found = _few([*found, *more])
    return found, at


def _sequence(text: str, at: int) -> tuple[list[_Word], int]:
    found: list[_Word] = [()]
    while at < len(text) and text[at] not in "|)":
        if text.startswith(".*", at) and at + 2 == len(text):
            return found, len(text)
        atoms, at = _atom(text, at)
        if text.startswith("?", at):
            atoms, at = [*atoms, ()], at + 1
        if text[at : at + 1] in ("?", "*", "+", "{"):
            raise _NotSpelledOutError
        # Nothing is behind the end.
        joined = (a + b for a in found for b in atoms if not b or a[-1:] != (_END,))
        found = _few(joined)
    return found, at


def _atom(text: str, at: int) -> tuple[list[_Word], int]:
    letter = text[at]
    if letter == "(":
        is_plain = text.startswith("(?:", at)
        if text.startswith("(?", at) and not is_plain:
            raise _NotSpelledOutError
        words, end = _alternatives(text, at + (3 if is_plain else 1))
        return words, end + 1
    if letter == "$":
        return [(_END,)], at + 1
    if letter == "[":
        found = re.compile(r"\[([A-Za-z0-9_/.]+)\]").match(text, at)
        if found is None:
            raise _NotSpelledOutError
        return [(one,) for one in found[1]], found.end()
    if letter == "\\":
        if text[at + 1 : at + 2].isalnum():
            raise _NotSpelledOutError
        return [(text[at + 1],)], at + 2
    if letter in ".^*+{":
        raise _NotSpelledOutError
    return [(letter,)], at + 1


def _few(words: Iterable[_Word]) -> list[_Word]:
    found: list[_Word] = []
    for word in words:
        found.append(word)
        if len(found) > _MAX_WORDS:
            raise _NotSpelledOutError
    return found


def _tree(words: Iterable[_Word]) -> _Tree:
    root: _Tree = {}
    # Of `a` and `ab`, `a` is enough.
    for word in sorted(set(words), key=len, reverse=True):
        at = root
        for letter in word[:-1]:
            at = at.setdefault(letter, {})
        if word:
            at[word[-1]] = {}
        else:
            root = {}
    return root


def _anything_but(tree: _Tree, *, may_end: bool) -> str | None:
    """What begins with none of the words; None: they leave nothing."""
    if not tree:
        return None
    found = ["$"] if may_end and _END not in tree else []
    letters = "".join(re.sub(r"[]\\^-]", r"\\\g<0>", letter) for letter in sorted(tree))
    found.append(f"[^{letters}]" if letters else ".")
    for letter, below in sorted(tree.items()):
        behind = _anything_but(below, may_end=True)
        if behind is not None:
            found.append(re.sub(r"[][.*+?^$(){}|\\]", r"\\\g<0>", letter) + behind)
    return f"(?:{'|'.join(found)})"
