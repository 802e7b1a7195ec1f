"""The implementations that a command works with: the known ones, and those given by `--peer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from interop.runner import implementations
from interop.runner.implementations import Implementation


class Peers:
    """Known implementations and extra ones, by name; an extra one shadows a known one."""

    def __init__(self, extra: Iterable[Implementation] = ()) -> None:
        self._extra = {peer.name: peer for peer in extra}

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys((*implementations.KNOWN, *self._extra)))

    def find(self, name: str) -> Implementation:
        """Raises NotHere when it is not installed, click.BadParameter for an unknown name."""
        if name not in self.names:
            known = ", ".join(self.names)
            raise click.BadParameter(f"no implementation {name!r}; known: {known}")
        return self._extra.get(name) or implementations.find(name)


def _parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Peers:
    try:
        return Peers(map(implementations.parse_peer, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


peer_option: Callable[[Any], Any] = click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME=CMD",
    callback=_parse,
    help="Add an implementation.",
)
"""`--peer NAME=CMD`, any number of times; the command gets `peers: Peers`."""
