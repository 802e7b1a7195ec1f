"""`quicedge status`: how a running edge is."""

from __future__ import annotations

import click

from quicedge.admin.command_messages import Command
from quicedge.cli.command_client import ask, control_options, show


@click.command()
@control_options
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def command(config: str | None, path: str | None, as_json: bool) -> None:
    """Show the state of a running edge, its workers and its last reload."""
    show(ask(Command.STATUS, config, path), as_json=as_json)
