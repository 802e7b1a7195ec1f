"""`python -m interop client`."""

from __future__ import annotations

import click
import uvloop

from interop.endpoint.client import Client
from interop.endpoint.download import DownloadError
from interop.endpoint.environment import Environment


@click.command()
def command() -> None:
    """Download what the environment asks for (ROLE=client, REQUESTS).

    docs/interop.md has the variables.
    """
    try:
        uvloop.run(Client(Environment.read()).run())
    except DownloadError as error:
        raise click.ClickException(str(error)) from error
