"""Where a directive counts: nginx's inheritance from `http` to `server` to `location` to `if`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quicedge.migrate.nginx.source import Directive


@dataclass(frozen=True)
class Scope:
    """The blocks around a place, the outermost first."""

    blocks: tuple[Sequence[Directive], ...]

    def inside(self, block: Sequence[Directive]) -> Scope:
        return Scope((*self.blocks, block))

    @property
    def own(self) -> Sequence[Directive]:
        """The directives of the innermost block."""
        return self.blocks[-1]

    def last(self, *names: str) -> Directive | None:
        """The directive that counts, from the nearest block that has one."""
        found = self.all(*names)
        return found[-1] if found else None

    def all(self, *names: str) -> list[Directive]:
        """The directives that count of those that may be repeated: all of the nearest block that
        has any, and none of those around it."""
        for block in reversed(self.blocks):
            found = [directive for directive in block if directive.name in names]
            if found:
                return found
        return []

    def everywhere(self, *names: str) -> list[Directive]:
        """All directives of a name in the blocks around, the outermost first."""
        return [d for block in self.blocks for d in block if d.name in names]

    def is_on(self, name: str, default: bool = False) -> bool:
        found = self.last(name)
        return default if found is None else found.args[:1] == ["on"]
