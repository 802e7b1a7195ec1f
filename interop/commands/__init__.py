"""The command line: `python -m interop COMMAND`."""

from __future__ import annotations

import click

from quicedge.cli.group import CommandGroup

COMMANDS = {
    "run": "Run cases between quicedge and the other implementations found here.",
    "list": "Show the cases and the implementations, and which of them are here.",
    "tls": "Show what other TLS stacks negotiate with quicedge.",
    "results": "Summarize all runs below a directory in one Markdown page.",
    "server": "Be the interop runner's server, as the environment says.",
    "client": "Be the interop runner's client, as the environment says.",
}


@click.command(
    cls=CommandGroup,
    package=__name__,
    summaries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """The QUIC interop runner's cases, without Docker."""
