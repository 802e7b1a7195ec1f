"""`quicedge validate`: a configuration file judged by itself, on any machine."""

from __future__ import annotations

import click

from quicedge.cli.check import show
from quicedge.cli.options import make_config


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    required=True,
    help="Configuration file, quicedge.toml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an empty list.")
def command(path: str, as_json: bool) -> None:
    """Judge a configuration file alone; exit 2 when it is no good.

    The same as `quicedge check --no-machine`: for a file that is made on one machine and used on
    another.
    """
    config = make_config(path, None, None, (), None, None, machine=False)
    show(config, [], as_json=as_json)
