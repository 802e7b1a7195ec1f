"""`quicedge upgrade`: replace a running edge by the program that is installed now."""

from __future__ import annotations

import click

from quicedge.admin.command_messages import Command
from quicedge.cli.command_client import ask, control_options, show


@click.command()
@control_options
def command(config: str | None, path: str | None) -> None:
    """Have a running edge start the program that is installed now, and hand over to it.

    Waits until it serves. No connection is lost; those of the old program have `upgrade_drain` to
    finish what they do. When the new program does not serve, exits with 1 after saying why, and the
    old one goes on.
    """
    show(ask(Command.UPGRADE, config, path, until_end=True))
