r"""What takes the place of a value that a regular expression is found in: a template in which `\1`
and `\g<name>` stand for groups."""

from __future__ import annotations

from quicedge.config.filterlimits import MATCHED_LENGTH
from quicedge.config.patterns import compile_pattern, replacement_parts
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.templates import Template


class Replacement:
    """One replacement, whose templates are for URLs."""

    __slots__ = ("_parts", "_pattern")

    def __init__(self, pattern: str, text: str) -> None:
        self._pattern = compile_pattern(pattern)
        self._parts = [
            Template(part, for_url=True) if isinstance(part, str) else part.key
            for part in replacement_parts(text)
        ]

    def of(self, value: bytes, exchange: Exchange) -> bytes | None:
        """What a value becomes; None: the expression is not found in it."""
        match = self._pattern.search(value) if len(value) <= MATCHED_LENGTH else None
        if match is None:
            return None
        found = (
            part.fill(exchange) if isinstance(part, Template) else match.group(part) or b""
            for part in self._parts
        )
        return b"".join(found).strip(b" \t")
