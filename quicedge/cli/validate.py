"""`quicedge validate`: check a configuration file alone, on any machine."""

from __future__ import annotations

import click

from quicedge.cli.check import show
from quicedge.cli.options import Options, make_config


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    required=True,
    help="Configuration file, quicedge.toml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
def command(path: str, as_json: bool) -> None:
    """Check a configuration file alone; exits with 2 when it is invalid.

    The same as `quicedge check --no-machine`, for files written on another machine.
    """
    config = make_config(Options(path), machine=False)
    show(config, [], as_json=as_json)
