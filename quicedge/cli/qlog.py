"""`quicedge qlog`: analyse qlog traces of any implementation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.rule import Rule

from quicedge.cli.qlogtail import command as tail
from quicedge.qlog import diff as comparison
from quicedge.qlog import stats as statistics
from quicedge.qlog.analyse import Analysis, analyse
from quicedge.qlog.connection import Connection
from quicedge.qlog.definitions import Severity
from quicedge.qlog.normalise import Events
from quicedge.qlog.show import Filter, as_json, line
from quicedge.qlog.summary import summary
from quicedge.qlog.units import safe
from quicedge.qlog.validate import validate as validate_file

_SHOW_PROGRESS_FROM = 4_000_000
"""File size in bytes from which on a progress bar is shown."""
_UNITS = {"": 1.0, "ms": 1.0, "s": 1000.0, "us": 0.001}

Trace = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Time(click.ParamType):
    """A time in the trace: `250`, `250ms`, `1.5s`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a time such as 250ms or 1.5s", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on standard error, if that is a terminal and the file is large."""
    console = Console(stderr=True)
    whole = path.stat().st_size
    if not console.is_terminal or whole < _SHOW_PROGRESS_FROM:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(safe(path.name), total=whole)
        yield lambda done: progress.update(task, completed=done)


def _read(path: Path, detail_from: float = 0.0) -> Analysis:
    with _progress(path) as progress:
        analysis = analyse(path, progress, detail_from)
    if not analysis.connections:
        _nothing(analysis)
    return analysis


def _nothing(analysis: Analysis) -> NoReturn:
    place = f": {safe(analysis.parse_errors.places[0])}" if analysis.parse_errors.places else ""
    raise click.ClickException(f"{safe(analysis.path)} contains no qlog events{place}")


def _pick(analysis: Analysis, wanted: str | None) -> Connection:
    """Select a connection by its number in the file or a prefix of its ID."""
    if wanted is None:
        assert analysis.main is not None
        return analysis.main
    for index, connection in enumerate(analysis.connections):
        if wanted == str(index) or (connection.identifier.startswith(wanted) and wanted):
            return connection
    known = ", ".join(
        f"{index} ({safe(connection.identifier) or 'no ID'})"
        for index, connection in enumerate(analysis.connections[:8])
    )
    raise click.ClickException(
        f"no connection {wanted!r} in {safe(analysis.path)}; connections: {known}"
    )


def _warn(analysis: Analysis) -> None:
    console = Console(stderr=True)
    for part in statistics.reading_notes(analysis):
        console.print(part)


_connection = click.option(
    "-c", "--connection", metavar="ID|N", help="Select one connection of a file with several."
)
_since = click.option("--from", "since", type=_Time(), help="Start at this time (250ms, 1.5s).")


@click.group("qlog")
def command() -> None:
    """Analyse qlog traces: JSON or JSON-SEQ, qlog 0.3 to current drafts, plain or gzipped."""


@command.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=Trace)
@click.option("--json", "as_data", is_flag=True, help="Print JSON, one object per connection.")
@_connection
def stats(files: tuple[Path, ...], as_data: bool, connection: str | None) -> None:
    """Summarise connections: handshake, RTT, losses, goodput, and what limited them."""
    console = Console(highlight=False)
    for path in files:
        analysis = _read(path)
        chosen = analysis.connections if connection is None else [_pick(analysis, connection)]
        for one in chosen:
            if as_data:
                record = {
                    "file": str(path),
                    **summary(one),
                    "broken": [str(place) for place in analysis.parse_errors.places],
                }
                click.echo(msgspec.json.encode(record))
                continue
            if len(files) > 1 or len(chosen) > 1:
                console.print(Rule(safe(f"{path.name} {one.identifier}"), align="left"))
            console.print(statistics.page(analysis, one))


@command.command()
@click.argument("file", type=Trace)
@click.option("-t", "--type", "types", multiple=True, metavar="NAME",
              help="Events of this name; `*` allowed, repeatable: packet_*, http3:*.")  # fmt: skip
@click.option("--packet", type=click.IntRange(min=0), help="Events about this packet number.")
@click.option("--stream", type=click.IntRange(min=0), help="Events about this stream.")
@_since
@click.option("--to", "until", type=_Time(), help="Stop at this time.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("--json", "as_data", is_flag=True, help="Print JSON, one event per line, in the "
              "vocabulary of the current drafts.")  # fmt: skip
def show(
    file: Path,
    types: tuple[str, ...],
    packet: int | None,
    stream: int | None,
    since: float | None,
    until: float | None,
    limit: int | None,
    as_data: bool,
) -> None:
    """Print the events, one per line."""
    wanted = Filter(types, packet, stream, since, until)
    render = as_json if as_data else line
    events = Events(file)
    shown = 0
    trace = None
    for event_trace, event in events:
        if not wanted(event):
            continue
        if event_trace is not trace and not as_data:
            trace = event_trace
            header = trace.header
            title = f"# trace {header.index}: {header.implementation} {header.vantage}, "
            click.secho(safe(f"{title}qlog {header.version}"), dim=True)
        click.echo(render(event))
        shown += 1
        if limit is not None and shown >= limit:
            return
    for place in events.parse_errors.places:
        click.secho(f"broken: {safe(place)}", fg="red", err=True)
    if events.bad_events:
        click.secho(f"{events.bad_events} items are not events", fg="yellow", err=True)


@command.command()
@click.argument("files", metavar="FILE [FILE2]", nargs=-1, required=True, type=Trace)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The HTML page to write.")  # fmt: skip
@_connection
@_since
def report(
    files: tuple[Path, ...], output: Path, connection: str | None, since: float | None
) -> None:
    """Write one self-contained HTML page: graphs, streams, packets.

    With the traces of both endpoints the packet sequence diagram shows both. `--from` selects where
    the individually shown packets start.
    """
    from quicedge.qlog.report import write

    if len(files) > 2:
        raise click.UsageError(
            "a report takes one trace, or those of both endpoints of a connection"
        )
    analyses = [_read(path, since or 0.0) for path in files]
    sides = [(analysis, _pick(analysis, connection)) for analysis in analyses]
    write(output, sides)
    for analysis in analyses:
        _warn(analysis)
    click.echo(f"wrote {safe(output)} ({output.stat().st_size / 1000:.0f} kB)")


@command.command()
@click.argument("file", type=Trace)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The PNG (or SVG, PDF) to write.")  # fmt: skip
@_connection
def plot(file: Path, output: Path, connection: str | None) -> None:
    """Plot the congestion graph (requires `pip install quicedge[plot]`)."""
    from quicedge.qlog.plot import MissingLibrary, draw

    analysis = _read(file)
    try:
        draw(output, _pick(analysis, connection))
    except (MissingLibrary, ValueError) as error:
        raise click.ClickException(str(error)) from None
    _warn(analysis)
    click.echo(f"wrote {safe(output)}")


@command.command()
@click.argument("first", type=Trace)
@click.argument("second", type=Trace)
@click.option("--json", "as_data", is_flag=True, help="Print JSON.")
@_connection
def diff(first: Path, second: Path, as_data: bool, connection: str | None) -> None:
    """Compare two traces: both endpoints of a connection, or two runs of a transfer."""
    analyses = [_read(first), _read(second)]
    one, other = (_pick(analysis, connection) for analysis in analyses)
    if as_data:
        rows = [
            {"name": row.name, "first": row.first, "second": row.second}
            for row in comparison.compare(one, other)
        ]
        record = {"same_connection": comparison.same_connection(one, other), "rows": rows}
        click.echo(msgspec.json.encode(record))
        return
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    Console(highlight=False).print(comparison.page(one, other, names))
    for analysis in analyses:
        _warn(analysis)


@command.command()
@click.argument("file", type=Trace)
@click.option("--json", "as_data", is_flag=True, help="Print JSON.")
def validate(file: Path, as_data: bool) -> None:
    """Validate a trace against the drafts; exits with 1 on violations."""
    with _progress(file) as progress:
        result = validate_file(file, progress)
    if as_data:
        record = {
            "events": result.events,
            "version": result.version,
            "translated": result.translated,
            "importance": result.importance,
            "errors": result.errors,
            "conforms": result.conforms,
            "findings": [asdict(finding) for finding in result.findings.values()],
            "broken": [str(place) for place in result.parse_errors.places],
        }
        click.echo(msgspec.json.encode(record))
    else:
        _print_validation(result)
    if result.errors:
        raise SystemExit(1)


def _print_validation(result: Any) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(result.importance.items()))
    click.echo(safe(f"{result.events} events ({counts}), vocabulary {result.version}"))
    if result.translated:
        click.echo("Older vocabulary: events were translated before validation.")
    for place in result.parse_errors.places:
        click.echo(click.style("broken  ", fg="red") + safe(place))
    order = sorted(
        result.findings.values(),
        key=lambda item: (item.level is not Severity.ERROR, -item.count),
    )
    for finding in order:
        colour = "red" if finding.level is Severity.ERROR else "yellow"
        first = f"first event {finding.first}"
        if finding.example:
            first += f": {finding.example}"
        text = f"{finding.event}: {finding.what} ({finding.count}×, {first})"
        click.echo(click.style(f"{finding.level:<8}", fg=colour) + safe(text))
    if result.beyond_limit:
        click.echo(f"… and {result.beyond_limit} more")
    if result.conforms:
        click.secho("The trace conforms to the drafts.", fg="green")
    elif not result.errors:
        click.secho("No errors; the items above are not defined by the drafts.", fg="yellow")


command.add_command(tail)
