"""What all parts of a translation share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quicedge.migrate.document import Document
from quicedge.migrate.nginx.conditions import Table
from quicedge.migrate.nginx.notebook import Notebook
from quicedge.migrate.nginx.source import Directive


@dataclass
class World:
    """One translation."""

    directory: Path
    """Of the configuration, from which nginx resolves the files that it names."""
    prefix: Path | None = None
    """From which nginx resolves the files that it serves, if that is known."""
    document: Document = field(default_factory=Document)
    notebook: Notebook = field(default_factory=Notebook)
    tables: dict[str, Table] = field(default_factory=dict)
    """`map` and the like by their variable."""
    groups: dict[str, Directive] = field(default_factory=dict)
    """`upstream` blocks by name."""
    resolver: Directive | None = None
    request_zones: dict[str, Directive] = field(default_factory=dict)
    connection_zones: dict[str, Directive] = field(default_factory=dict)
    real_ip: list[Directive] = field(default_factory=list)
    """`set_real_ip_from` and `real_ip_header`, wherever they are."""
    to_supply: dict[str, None] = field(default_factory=dict)
    """What the operator must do, in order."""

    def path(self, name: str) -> str:
        """A file that nginx names, relative to the directory of its configuration."""
        return str((self.directory / name).absolute())

    def file(self, name: str) -> str:
        """A file or directory to be served."""
        return str(((self.prefix or self.directory) / name).absolute())

    def supply(self, text: str) -> None:
        self.to_supply[text] = None

    def warn_of_lost_protection(self, directive: Directive) -> None:
        """Tell the operator of a block that is left out and has refused requests."""
        refuses = any(
            d.name in ("deny", "auth_basic", "auth_request", "limit_except")
            or (d.name == "return" and d.args[0][:1] == "4")
            for d in directive.body
        )
        if refuses:
            words = "refuses requests and is left out; decide what takes its place"
            self.supply(f"{directive.place}: {directive.text} {words}")

    def collect(self, http: Sequence[Directive]) -> None:
        """Find what is named in one place and used in others."""
        for directive in http:
            args = directive.args
            if directive.name == "upstream" and args:
                self.groups[args[0]] = directive
            elif directive.name in ("map", "split_clients") and len(args) == 2:
                self._table(directive, args[0], args[1])
            elif directive.name == "geo" and args:
                self._table(directive, args[0] if len(args) == 2 else "", args[-1])
            elif directive.name == "resolver":
                self.resolver = directive
            elif directive.name == "limit_req_zone":
                self.request_zones[_zone(args)] = directive
            elif directive.name == "limit_conn_zone":
                self.connection_zones[_zone(args)] = directive

    def _table(self, directive: Directive, source: str, variable: str) -> None:
        name = variable.lstrip("$")
        self.tables[name] = Table(directive, source, name)


def _zone(args: Sequence[str]) -> str:
    """The name in `zone=NAME:SIZE`."""
    found = next((arg for arg in args if arg.startswith("zone=")), "")
    return found.removeprefix("zone=").partition(":")[0]


def walk(directives: Sequence[Directive]) -> Iterator[Directive]:
    """All directives, with those in blocks."""
    for directive in directives:
        yield directive
        yield from walk(directive.body)
