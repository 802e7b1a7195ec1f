"""The front door: `quicedge COMMAND`, one module a command, loaded when it is asked for."""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

import click

from quicedge import __version__

COMMANDS = {
    "serve": "Run the edge.",
    "demo": "Run the edge before an embedded origin and show a first request.",
    "check": "Say what a configuration would do and what will hurt.",
    "validate": "Judge a configuration file alone, on any machine.",
    "get": "Fetch a URL over HTTP/3.",
    "top": "Show the connections of a running edge, live.",
    "qlog": "Read qlog traces: stats, show, report, plot, diff, validate.",
    "interop": "Run the QUIC interop cases against other stacks.",
    "interop-server": "Be the interop runner's server (by environment).",
    "interop-client": "Be the interop runner's client (by environment).",
    "certs": "Make or show the development certificate.",
}
"""Each is the module `quicedge.cli.NAME` (`_` for `-`) with a click command `command`."""


DEBUG_VARIABLE = "QUICEDGE_DEBUG"
"""Set, it shows where an error came from: for whoever mends quicedge, not for whoever runs it."""


class _Commands(click.Group):
    """Imports a command's module only when that command runs, so that all start fast, and tells
    whatever fails in one line.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # EPIPE is click's: whoever read our output has left.
            is_broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if is_broken_pipe or os.environ.get(DEBUG_VARIABLE):
                raise
            raise click.ClickException(_in_words(error)) from error

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


def _in_words(error: Exception) -> str:
    """One line about what stopped a command."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, UnicodeDecodeError):
        return f"the input is no {error.encoding} text (byte {error.start})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({DEBUG_VARIABLE}=1 shows where)"


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quicedge")
def main() -> None:
    """An HTTP/3 edge: QUIC in, HTTP/1.1 or HTTP/2 out, and its transport in plain sight."""
