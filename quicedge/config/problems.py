"""Problems found in a configuration, with their positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Problem(NamedTuple):
    """One problem, under the path of its key: `routes[0].path`."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(ValueError):
    """An invalid configuration; the message has one line per problem.

    `lines` maps keys to line numbers, for positions as `file:line`.
    """

    def __init__(
        self, source: str, problems: list[Problem], lines: Mapping[str, int] | None = None
    ) -> None:
        self.problems = problems
        places = [f"{source}{_position(problem.key, lines or {})}" for problem in problems]
        super().__init__(
            "\n".join(f"{at}: {problem}" for at, problem in zip(places, problems, strict=True))
        )


def _position(key: str, lines: Mapping[str, int]) -> str:
    """`:LINE` of a key, or of its nearest enclosing key in the file."""
    while key:
        if key in lines:
            return f":{lines[key]}"
        shorter = re.sub(r"(\[\d+\]|\.[^.\[\]]*|^[^.\[\]]+)$", "", key, count=1)
        # Keys that users choose may have dots and brackets of their own.
        key = shorter if shorter != key else key[:-1]
    return f":{lines['']}" if "" in lines else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` when a known word resembles `word`, else an empty string."""
    import difflib  # only where something is wrong

    by_folded = {name.lower().replace("-", "_"): name for name in known}
    folded = word.lower().replace("-", "_")
    near = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
