"""`quicedge interop`: the QUIC interop runner's matrix, without Docker."""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OURS = "quicedge"


@click.command()
@click.option("--list", "list_only", is_flag=True, help="Show the cases and who is here, and stop.")
@click.option("-t", "--test", "tests", multiple=True, metavar="CASE", help="Only this case.")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Only this client.")
@click.option("--server", "servers", multiple=True, metavar="NAME", help="Only this server.")
@click.option("--peer", "peers", multiple=True, metavar="NAME=CMD", help="Add an implementation.")
@click.option("--repeat", default=1, type=click.IntRange(1, 100), show_default=True)
@click.option("--loopback", is_flag=True, help="Loopback subset even where namespaces work.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where logs, captures and reports go. [interop/runs/TIME]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run nothing; tell all runs below the output directory in one Markdown file.",
)
def command(
    list_only: bool,
    tests: tuple[str, ...],
    clients: tuple[str, ...],
    servers: tuple[str, ...],
    peers: tuple[str, ...],
    repeat: int,
    loopback: bool,
    output: Path | None,
    results: Path | None,
) -> None:
    """Run interop cases between quicedge and the other implementations found here.

    Without --client and --server, quicedge meets everyone in both roles. The exit code is the
    number of failures, 100 at most.
    """
    runner = _load_runner()
    try:
        extra = {peer.name: peer for peer in map(runner.implementations.parse_peer, peers)}
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    console = Console(highlight=False, soft_wrap=True)
    if list_only:
        _show(console, runner, extra)
        return
    if results is not None:
        below = output or CHECKOUT / "interop" / "runs"
        results.write_text(runner.results.summarize(below, OURS))
        return
    chosen = _cases(runner, tests)
    obstacle = "--loopback" if loopback else runner.environment.missing_for_namespaces()
    directory = (output or CHECKOUT / "interop" / "runs" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    if obstacle is not None:
        left_out = [case.name for case in chosen if not case.loopback]
        chosen = [case for case in chosen if case.loopback]
        console.print(
            f"[yellow]Loopback subset[/] ({escape(obstacle)}): files and exit codes are judged,"
            f" nothing on the wire. Left out: {', '.join(left_out) or 'none'}."
        )
        if not chosen:
            raise click.ClickException("none of these cases can run without namespaces")
    directory.mkdir(parents=True, exist_ok=True)
    failed = _run(console, runner, chosen, (clients, servers), extra, repeat, obstacle, directory)
    sys.exit(min(failed, 100))


class _Runner:
    """The machinery of the checkout's interop folder."""

    def __init__(self) -> None:
        from interop.runner import (
            cases,
            environment,
            implementations,
            matrix,
            report,
            results,
            topology,
            trial,
        )

        self.cases, self.environment, self.implementations = cases, environment, implementations
        self.matrix, self.report, self.results = matrix, report, results
        self.topology, self.trial = topology, trial


def _load_runner() -> _Runner:
    if not (CHECKOUT / "interop" / "runner").is_dir():
        raise click.ClickException(
            "the interop harness lives in quicedge's repository (interop/runner); run this"
            " command from a checkout, for example after `pip install -e .` there"
        )
    sys.path.insert(0, str(CHECKOUT))
    return _Runner()


def _cases(runner: _Runner, names: tuple[str, ...]) -> list[Any]:
    known = runner.cases.BY_NAME
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", do you mean {near[0]}?" if near else "; --list shows them"
            raise click.BadParameter(f"no case {name!r}{hint}", param_hint="-t")
    return [known[name] for name in names] if names else list(runner.cases.CASES)


def _show(console: Console, runner: _Runner, extra: dict[str, Any]) -> None:
    for case in runner.cases.CASES:
        where = "" if case.loopback else "  [dim]namespaces only[/]"
        console.print(f"{case.name:<20} {case.abbr:<4} {case.desc}{where}")
    console.print()
    for name in (*runner.implementations.KNOWN, *extra):
        try:
            peer = extra.get(name) or runner.implementations.find(name)
        except runner.implementations.NotHere as missing:
            console.print(f"{name:<20} [dim]not here: {escape(str(missing))}[/]")
            continue
        roles = " ".join(role for role in ("client", "server") if getattr(peer, role))
        console.print(f"{name:<20} {roles:<14} {peer.version}")


def _implementations(
    console: Console, runner: _Runner, names: tuple[str, ...], role: str, extra: dict[str, Any]
) -> list[Any]:
    """Those named, each of which must be here; without names, all that are."""
    found = []
    for name in names or (*runner.implementations.KNOWN, *extra):
        try:
            peer = extra.get(name) or runner.implementations.find(name)
            if peer.build is not None:
                peer.build()
        except KeyError:
            known = ", ".join((*runner.implementations.KNOWN, *extra))
            raise click.BadParameter(f"no implementation {name!r}; known: {known}") from None
        except runner.implementations.NotHere as missing:
            if names:
                raise click.ClickException(f"{name}: {missing}") from missing
            console.print(f"[dim]{name} left out: {escape(str(missing))}[/]")
            continue
        if getattr(peer, role) is not None:
            found.append(peer)
        elif names:
            raise click.ClickException(f"{name} has no {role}")
    return found


def _run(
    console: Console,
    runner: _Runner,
    cases: list[Any],
    sides: tuple[tuple[str, ...], tuple[str, ...]],
    extra: dict[str, Any],
    repeat: int,
    obstacle: str | None,
    directory: Path,
) -> int:
    clients = _implementations(console, runner, sides[0], "client", extra)
    servers = _implementations(console, runner, sides[1], "server", extra)
    if obstacle is not None:
        clients = [item for item in clients if not item.fixed_paths]
        servers = [item for item in servers if not item.fixed_paths]
    blocks = [(clients, servers)]
    if not any(sides):
        ours = [item for item in clients if item.name == OURS]
        blocks = [(clients, ours), (ours, [item for item in servers if item not in ours])]
    marks, result = runner.report.MARKS, runner.trial.Result
    styles = {result.SUCCEEDED: "green", result.FAILED: "red", result.UNSUPPORTED: "yellow"}

    def progress(client: str, server: str, case: str, outcome: Any) -> None:
        style = styles[outcome.result]
        speed = f"{outcome.kbps:.0f} kbps" if outcome.kbps else ""
        console.print(
            f"[{style}]{marks[outcome.result]}[/] {client} → {server}  {case:<20}"
            f" {outcome.seconds:5.1f} s  {speed}{escape(outcome.reason)}",
        )

    failed = 0
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(runner.topology.topology()) if obstacle is None else None
        site = runner.trial.Site(names)
        for number, (block_clients, block_servers) in enumerate(blocks):
            if not (block_clients and block_servers):
                continue
            at = directory if len(blocks) == 1 else directory / ("as-server", "as-client")[number]
            at.mkdir(parents=True, exist_ok=True)
            done = runner.matrix.run_matrix(
                *(site, block_clients, block_servers, cases, at), repeat=repeat, progress=progress
            )
            runner.report.write_reports(done, at)
            _summary(console, runner, done, at)
            failed += done.failed
    return failed


def _summary(console: Console, runner: _Runner, done: Any, at: Path) -> None:
    table = Table(title="client (row) x server (column)", title_justify="left")
    table.add_column("")
    for server in done.servers:
        table.add_column(server.name, overflow="fold")
    for client in done.clients:
        row = [client.name]
        for server in done.servers:
            cells = done.cells[client.name, server.name]
            lines = []
            for value, mark in runner.report.MARKS.items():
                names = [
                    f"{cell.case.abbr}{': ' + cell.details if cell.details else ''}"
                    for cell in cells
                    if cell.result is value
                ]
                if names:
                    lines.append(f"{mark} {' '.join(names)}")
            row.append("\n".join(lines))
        table.add_row(*row)
    console.print(table)
    for pair, case, result, why in done.reasons():
        console.print(f"{runner.report.MARKS[result]} {pair} {case}: {escape(why)}")
    console.print(f"Report: {at / 'index.html'}")
