"""`quicedge migrate`: translate the configuration of another server."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from quicedge.migrate.errors import SourceError
from quicedge.migrate.report import Translation, as_dict, render, summary


def translate(path: Path) -> Translation:
    """Translate a configuration, of whichever server it is; raises SourceError."""
    # Each source has dependencies of its own.
    from quicedge.migrate.nginx.translation import translate as of_nginx

    translator: Callable[[Path], Translation] = of_nginx
    return translator(path)


@click.command()
@click.argument("source", metavar="NGINX.CONF", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write [default: standard output].",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option(
    "--report",
    "report_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report there [default: standard error].",
)
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
def command(
    source: Path, output: Path | None, force: bool, report_file: Path | None, as_json: bool
) -> None:
    """Translate the configuration of nginx, with the files that it includes, into quicedge.toml.

    A report says of each directive what became of it. Exits with 2 if the configuration cannot be
    read; nothing is written then.
    """
    if output is not None and output.exists() and not force:
        raise click.UsageError(f"{output} exists; --force overwrites it")
    try:
        translation = translate(source)
    except SourceError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if as_json:
        report = msgspec.json.format(msgspec.json.encode(as_dict(translation)), indent=1).decode()
    else:
        report = render(translation)
    if report_file is not None:
        _write(report_file, report)
        click.echo(summary(translation), err=True)
    else:
        click.echo(report, err=True, nl=not report.endswith("\n"))
    if output is None:
        click.echo(translation.toml, nl=False)
    else:
        _write(output, translation.toml)


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
