"""`quicedge serve`: run the edge."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import quicedge.lean_imports  # noqa: F401  before all others
from quicedge.cli.options import Options, config_options, make_config, with_certificate
from quicedge.config.addresses import parse_listen
from quicedge.config.listeners import listeners


@click.command()
@config_options
@click.option("--reload", is_flag=True, help="Start again when the application's code changes.")
def command(options: Options, reload: bool) -> None:
    """Run the edge until SIGTERM.

    Without configured certificates, a development certificate is created under certs/.
    """
    if reload:
        if options.app is options.wsgi is None:
            raise click.UsageError("--reload requires --app or --wsgi")
        from quicedge.cli.watch import serve_with_reload

        arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
        serve_with_reload(arguments, Path(options.app_directory or "."))
    from quicedge.supervisor import run
    from quicedge.supervisor.handover import refuse

    try:
        config, development = with_certificate(make_config(options))
    except click.ClickException as error:
        # The edge that this program is to take over from tells whoever asked for it.
        refuse(error.format_message())
        raise
    if development is not None:
        click.echo(f"development certificate; clients must trust {development.ca}", err=True)
        port = next((parse_listen(item.address).port for item in listeners(config)), None)
        if port:
            click.echo(f"try: curl --cacert {development.ca} https://localhost:{port}/", err=True)
    sys.exit(run(config, options.path))
