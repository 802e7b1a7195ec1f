r"""What takes the place of what a regular expression has matched: a template in which `\1` and
`\g<name>` stand for groups."""

from __future__ import annotations

from typing import Any

from quicedge.config.patterns import replacement_parts
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.templates import Template


class Replacement:
    """One replacement, whose templates are for URLs."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        self._parts = [
            Template(part, for_url=True) if isinstance(part, str) else part.key
            for part in replacement_parts(text)
        ]

    def fill(self, match: Any, exchange: Exchange) -> bytes:
        """The text for a match."""
        found = (
            part.fill(exchange) if isinstance(part, Template) else match.group(part) or b""
            for part in self._parts
        )
        return b"".join(found).strip(b" \t")
