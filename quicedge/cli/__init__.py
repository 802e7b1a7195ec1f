"""The command line: `quicedge COMMAND`."""

from __future__ import annotations

import click

from quicedge import __version__
from quicedge.cli.group import CommandGroup

COMMANDS = {
    "serve": "Run the edge.",
    "demo": "Run the edge with an embedded origin and show a first request.",
    "reload": "Reload the configuration of a running edge.",
    "upgrade": "Replace a running edge by the program that is installed now.",
    "status": "Show how a running edge is.",
    "stop": "Stop a running edge.",
    "check": "Check a configuration on this machine.",
    "validate": "Check a configuration file alone, on any machine.",
    "migrate": "Translate the configuration of nginx or Caddy.",
    "get": "Fetch a URL over HTTP/3.",
    "top": "Show the connections of a running edge, live.",
    "qlog": "Read qlog traces: stats, show, report, plot, diff, validate.",
    "certs": "List, renew and import certificates; create and trust the development CA.",
}


@click.command(
    cls=CommandGroup,
    package=__name__,
    summaries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="quicedge")
def main() -> None:
    """An HTTP/3 edge that terminates QUIC and forwards to HTTP/1.1 or HTTP/2 origins."""
