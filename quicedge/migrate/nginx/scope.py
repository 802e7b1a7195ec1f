"""Where a directive counts: nginx's inheritance from `http` to `server` to `location` to `if`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quicedge.migrate.nginx.source import Directive

_ByName = Mapping[str, Sequence[Directive]]


@dataclass(frozen=True)
class Scope:
    """The blocks around a place, the outermost first."""

    blocks: tuple[Sequence[Directive], ...]
    _by_name: tuple[_ByName, ...] = field(default=(), compare=False, repr=False)
    """The same blocks by name: `http` has a thousand servers, and is asked for all of them."""

    def __post_init__(self) -> None:
        rest = self.blocks[len(self._by_name) :]
        object.__setattr__(self, "_by_name", (*self._by_name, *map(_by_name, rest)))

    def inside(self, block: Sequence[Directive]) -> Scope:
        return Scope((*self.blocks, block), self._by_name)

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
        for block, by_name in zip(reversed(self.blocks), reversed(self._by_name), strict=True):
            found = [name for name in names if name in by_name]
            if len(found) == 1:
                return list(by_name[found[0]])
            if found:
                return [directive for directive in block if directive.name in names]
        return []

    def is_on(self, name: str, default: bool = False) -> bool:
        found = self.last(name)
        return default if found is None else found.args[:1] == ["on"]


def _by_name(block: Sequence[Directive]) -> _ByName:
    found: dict[str, list[Directive]] = {}
    for directive in block:
        found.setdefault(directive.name, []).append(directive)
    return found
