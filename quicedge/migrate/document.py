"""A configuration to be written: tables with the keys of `quicedge.toml`, and comments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """A table, with comments above it."""

    keys: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    origin: Any = None
    """What it was translated from, in the form of the source's own reader."""


@dataclass
class Document:
    """All of a configuration, in the order in which it is written."""

    top: Section = field(default_factory=Section)
    """Keys outside of all tables."""
    sections: dict[str, Section] = field(default_factory=dict)
    """`tls`, `limits`, `log` and so on; a dot stands between the names of nested tables."""
    certificates: list[Section] = field(default_factory=list)
    """`[[tls.certificates]]`."""
    client_auth: list[Section] = field(default_factory=list)
    """`[[tls.client_auth]]`."""
    upstreams: dict[str, Section] = field(default_factory=dict)
    filters: list[dict[str, Any]] = field(default_factory=list)
    """Filters of all routes."""
    routes: list[Section] = field(default_factory=list)

    def section(self, name: str) -> Section:
        """A table by its name, made if there is none."""
        return self.sections.setdefault(name, Section())

    def as_dict(self) -> dict[str, Any]:
        """What reading the written file yields."""
        found: dict[str, Any] = dict(self.top.keys)
        for name, section in self.sections.items():
            table = found
            for part in name.split("."):
                table = table.setdefault(part, {})
            table.update(section.keys)
        for key, sections in (
            ("certificates", self.certificates),
            ("client_auth", self.client_auth),
        ):
            if sections:
                found.setdefault("tls", {})[key] = [section.keys for section in sections]
        if self.upstreams:
            found["upstreams"] = {name: item.keys for name, item in self.upstreams.items()}
        if self.filters:
            found["filters"] = self.filters
        found["routes"] = [route.keys for route in self.routes]
        return found
