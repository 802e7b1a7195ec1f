"""`quicedge serve`: run the edge."""

from __future__ import annotations

import sys

import click

from quicedge.cli.options import Options, config_options, make_config, with_certificate
from quicedge.config.addresses import parse_listen
from quicedge.config.listeners import listeners


@click.command()
@config_options
def command(options: Options) -> None:
    """Run the edge until SIGTERM.

    Without configured certificates, a development certificate is created under certs/.
    """
    import quicedge.plain_structlog  # noqa: F401  before all others
    from quicedge.supervisor import run

    config, development = with_certificate(make_config(options))
    if development is not None:
        click.echo(f"development certificate; clients must trust {development.ca}", err=True)
        port = next((parse_listen(item.address).port for item in listeners(config)), None)
        if port:
            click.echo(f"try: curl --cacert {development.ca} https://localhost:{port}/", err=True)
    sys.exit(run(config, options.path))
