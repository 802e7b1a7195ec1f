"""`quicedge stop`: drain and end a running edge."""

from __future__ import annotations

import click

from quicedge.admin.command_messages import Command
from quicedge.cli.command_client import ask, control_options, show


@click.command()
@control_options
@click.option("--now", is_flag=True, help="Do not wait for requests in progress.")
def command(config: str | None, path: str | None, now: bool) -> None:
    """Stop a running edge; wait until it has ended."""
    show(ask(Command.STOP_NOW if now else Command.STOP, config, path, until_end=True))
