"""The front door: `quicedge COMMAND`, one module a command, loaded when it is asked for."""

from __future__ import annotations

import importlib

import click

from quicedge import __version__

COMMANDS = {
    "serve": "Run the edge.",
    "demo": "Run the edge before an embedded origin and show a first request.",
    "check": "Say what a configuration would do and what will hurt.",
    "get": "Fetch a URL over HTTP/3.",
    "top": "Show the connections of a running edge, live.",
    "qlog": "Read qlog traces: stats, show, report, plot, diff, validate.",
    "interop": "Run the QUIC interop cases against other stacks.",
    "interop-server": "Be the interop runner's server (by environment).",
    "interop-client": "Be the interop runner's client (by environment).",
    "certs": "Make or show the development certificate.",
}
"""Each is the module `quicedge.cli.NAME` (`_` for `-`) with a click command `command`."""


class _Lazy(click.Group):
    """Imports a command's module only when that command runs, so that all start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"quicedge.cli.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quicedge")
def main() -> None:
    """An HTTP/3 edge: QUIC in, HTTP/1.1 or HTTP/2 out, and its transport in plain sight."""
