"""`quicedge reload`: have a running edge read its configuration again."""

from __future__ import annotations

import click

from quicedge.admin.command_messages import Command
from quicedge.cli.command_client import ask, control_options, show


@click.command()
@control_options
@click.option("--validate", is_flag=True, help="Try everything, and change nothing.")
def command(config: str | None, path: str | None, validate: bool) -> None:
    """Reload the configuration and certificates of a running edge; wait until it is done.

    Prints what has changed. When anything is wrong, exits with 1 after saying what, and the edge
    goes on as it was.
    """
    show(ask(Command.VALIDATE if validate else Command.RELOAD, config, path))
