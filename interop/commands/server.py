"""`python -m interop server`."""

from __future__ import annotations

import click
import uvloop

from interop.endpoint.environment import Environment
from interop.endpoint.server import serve


@click.command()
def command() -> None:
    """Serve /www as the environment says (ROLE=server), until SIGTERM.

    docs/interop.md has the variables.
    """
    uvloop.run(serve(Environment.read()))
