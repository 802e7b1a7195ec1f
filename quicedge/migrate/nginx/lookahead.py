r"""Negative lookahead, which RE2 does not have, where it can be said without.

`/\.(?!well-known)` is what most configurations use it for: some words that must not follow, and
nothing in particular behind them. That is an alternation of all other beginnings.
"""

from __future__ import annotations

import re

_LOOKAHEAD = re.compile(r"\(\?!((?:\\.|[^()\[\]*+?.^$\\])+)\)((?:\(?\.\*\)?)?\$?)$")
_MOST_CHARACTERS = 200
"""Of the words, which become several times as many."""

Tree = dict[str, "Tree"]
"""Words by their characters; an empty one stands at the end of a word."""


def without_lookahead(pattern: str) -> str:
    """The same expression with the lookahead at its end spelled out; as it is if there is none
    that can be."""
    found = _LOOKAHEAD.search(pattern)
    if found is None or len(found[1]) > _MOST_CHARACTERS:
        return pattern
    words = [re.sub(r"\\(.)", r"\1", word) for word in found[1].split("|")]
    if not all(word.isascii() for word in words) or re.search(r"\\[A-Za-z0-9]", found[1]):
        return pattern
    if not all(words):
        return pattern
    tree: Tree = {}
    for word in words:
        _insert(tree, word)
    rest = found[2]
    other = f"(?:{_complement(tree)})"
    if rest.startswith("("):
        other, rest = f"({other}.*)", rest.removeprefix("(.*)")
    return pattern[: found.start()] + other + rest


def _insert(tree: Tree, word: str) -> None:
    node = tree
    for character in word:
        node = node.setdefault(character, {})
    node[""] = {}


def _complement(tree: Tree) -> str:
    """All that begins with none of the words of a tree: another character, the end, or the
    beginning of a word that goes on differently."""
    ways = [f"[^{''.join(map(re.escape, tree))}]", "$"]
    ways += [
        f"{re.escape(character)}(?:{_complement(below)})"
        for character, below in tree.items()
        if "" not in below
    ]
    return "|".join(ways)
