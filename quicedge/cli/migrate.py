"""`quicedge migrate`: translate the configuration of another server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import click
import msgspec

from quicedge.cli.output_file import OutputFile
from quicedge.cli.refused import Refused
from quicedge.migrate.errors import SourceError
from quicedge.migrate.report import Translation, as_dict, render, summary


class Source(StrEnum):
    """Servers whose configurations are understood."""

    NGINX = "nginx"
    CADDY = "caddy"


def source_of(path: Path) -> Source:
    """Whose configuration a file is, by its name."""
    name = path.name.lower()
    is_caddy = name.startswith("caddyfile") or name.endswith(".caddyfile")
    return Source.CADDY if is_caddy else Source.NGINX


def translate(path: Path, source: Source | None = None) -> Translation:
    """Translate a configuration, of whichever server it is; raises SourceError."""
    # Each source has dependencies of its own.
    translator: Callable[[Path], Translation]
    if (source or source_of(path)) is Source.CADDY:
        from quicedge.migrate.caddy.translate import translate_caddyfile as translator
    else:
        from quicedge.migrate.nginx.translation import translate as translator
    return translator(path)


@click.command()
@click.argument("source", metavar="NGINX.CONF|CADDYFILE", type=click.Path(path_type=Path))
@click.argument("requests", metavar="[REQUESTS]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--from",
    "origin",
    type=click.Choice([one.value for one in Source]),
    help="Whose configuration it is [default: by the name of the file].",
)
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
@click.option(
    "--verify",
    "verifies",
    is_flag=True,
    help="Run the other server and quicedge side by side, play the REQUESTS of a file, or ones "
    "made from the configuration, to both, and show every difference.",
)
def command(
    source: Path,
    requests: Path | None,
    origin: str | None,
    output: Path | None,
    force: bool,
    report_file: Path | None,
    as_json: bool,
    verifies: bool,
) -> None:
    """Translate the configuration of nginx, with the files that it includes, or of Caddy into
    quicedge.toml.

    A report says of each directive what became of it. Exits with 2 if the configuration cannot be
    read; nothing is written then. With --verify, exits with 1 if there is a difference that the
    report has not announced.
    """
    chosen = Source(origin) if origin else source_of(source)
    if requests is not None and not verifies:
        raise click.UsageError("a file of requests is for --verify")
    target = OutputFile(output, may_replace=force, never=source) if output else None
    report_target = None
    if report_file is not None:
        report_target = OutputFile(report_file, may_replace=True, never=source)
    if target and report_target and target.is_same(report_target):
        raise click.UsageError("--output and --report are the same file")
    try:
        translation = translate(source, chosen)
    except SourceError as error:
        raise Refused(str(error)) from error
    if as_json:
        report = msgspec.json.format(msgspec.json.encode(as_dict(translation)), indent=1).decode()
    else:
        report = render(translation)
    if report_target is not None:
        _write(report_target, report)
        click.echo(summary(translation), err=True)
    else:
        click.echo(report, err=True, nl=not report.endswith("\n"))
    if target is not None:
        _write(target, translation.toml)
    elif not verifies:
        click.echo(translation.toml, nl=False)
    if verifies:
        _verify(source, chosen, translation, requests)


def _verify(path: Path, source: Source, translation: Translation, requests: Path | None) -> None:
    from quicedge.migrate.verify.caddy_original import CaddyOriginal
    from quicedge.migrate.verify.nginx_original import NginxOriginal
    from quicedge.migrate.verify.process import EdgeError
    from quicedge.migrate.verify.request_file import RequestFileError
    from quicedge.migrate.verify.run import verify

    try:
        original = CaddyOriginal if source is Source.CADDY else NginxOriginal
        verdict = verify(path, translation, original, requests)
    except (EdgeError, RequestFileError, SourceError) as error:
        raise Refused(str(error)) from error
    click.echo(verdict.render(), nl=False)
    if not verdict.is_proven:
        sys.exit(1)


def _write(output: OutputFile, text: str) -> None:
    try:
        output.write(text)
    except OSError as error:
        raise Refused(f"{output.path}: {error.strerror}") from error
