"""`python -m interop run`: the QUIC interop runner's matrix, without Docker."""

from __future__ import annotations

import contextlib
import difflib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from interop.commands.peers import Peers, peer_option
from interop.runner.cases import BY_NAME, CASES, Case
from interop.runner.environment import missing_for_namespaces
from interop.runner.implementations import INTEROP, OURS, Implementation, NotHere
from interop.runner.matrix import Matrix, run_matrix
from interop.runner.report import MARKS, write_reports
from interop.runner.topology import topology
from interop.runner.trial import Outcome, Result, Site

MAX_EXIT_CODE = 100
_STYLES = {Result.SUCCEEDED: "green", Result.FAILED: "red", Result.UNSUPPORTED: "yellow"}


@click.command()
@click.option("-t", "--test", "tests", multiple=True, metavar="CASE", help="Only this case.")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Only this client.")
@click.option("--server", "servers", multiple=True, metavar="NAME", help="Only this server.")
@peer_option
@click.option("--repeat", default=1, type=click.IntRange(1, 100), show_default=True)
@click.option("--loopback", is_flag=True, help="Loopback subset even where namespaces work.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory for logs, captures and reports. [interop/runs/TIME]",
)
def command(
    tests: tuple[str, ...],
    clients: tuple[str, ...],
    servers: tuple[str, ...],
    peers: Peers,
    repeat: int,
    loopback: bool,
    output: Path | None,
) -> None:
    """Run cases between quicedge and the other implementations found here.

    Without --client and --server, quicedge meets every implementation in both roles. The exit code
    is the number of failures, 100 at most.
    """
    console = Console(highlight=False, soft_wrap=True)
    cases = _cases(tests)
    obstacle = "--loopback" if loopback else missing_for_namespaces()
    directory = (output or INTEROP / "runs" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    if obstacle is not None:
        left_out = [case.name for case in cases if not case.loopback]
        cases = [case for case in cases if case.loopback]
        console.print(
            f"[yellow]Loopback subset[/] ({escape(obstacle)}): files and exit codes are checked,"
            f" nothing on the wire. Left out: {', '.join(left_out) or 'none'}."
        )
        if not cases:
            raise click.ClickException("none of these cases can run without namespaces")
    directory.mkdir(parents=True, exist_ok=True)
    run = _Run(console, cases, repeat, directory, on_loopback=obstacle is not None)
    if clients or servers:
        sides = run.endpoints(peers, clients, "client"), run.endpoints(peers, servers, "server")
        blocks = [sides]
    else:
        blocks = run.ours_against_all(peers)
    sys.exit(min(run.all_of(blocks), MAX_EXIT_CODE))


def _cases(names: Sequence[str]) -> list[Case]:
    for name in names:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, 1)
            hint = f", did you mean {near[0]}?" if near else "; `python -m interop list` shows them"
            raise click.BadParameter(f"no case {name!r}{hint}", param_hint="-t")
    return [BY_NAME[name] for name in names] if names else list(CASES)


Block = tuple[list[Implementation], list[Implementation]]
"""Clients and servers, each of which meets each."""


class _Run:
    """Cases, and where and how often they run."""

    def __init__(
        self,
        console: Console,
        cases: list[Case],
        repeat: int,
        directory: Path,
        *,
        on_loopback: bool,
    ) -> None:
        self._console = console
        self._cases = cases
        self._repeat = repeat
        self._directory = directory
        self._on_loopback = on_loopback

    def endpoints(self, peers: Peers, names: Sequence[str], role: str) -> list[Implementation]:
        """Those named, each of which must be here; without names, all that are."""
        found = []
        for name in names or peers.names:
            try:
                peer = peers.find(name)
                if peer.build is not None:
                    peer.build()
            except NotHere as missing:
                if names:
                    raise click.ClickException(f"{name}: {missing}") from missing
                self._console.print(f"[dim]{name} left out: {escape(str(missing))}[/]")
                continue
            if getattr(peer, role) is not None:
                found.append(peer)
            elif names:
                raise click.ClickException(f"{name} has no {role}")
        if self._on_loopback:
            found = [peer for peer in found if not peer.fixed_paths]
        return found

    def ours_against_all(self, peers: Peers) -> list[Block]:
        """Every client to our server, then our client to every other server."""
        clients = self.endpoints(peers, (), "client")
        servers = self.endpoints(peers, (), "server")
        ours = [peer for peer in clients if peer.name == OURS]
        return [(clients, ours), (ours, [peer for peer in servers if peer not in ours])]

    def all_of(self, blocks: list[Block]) -> int:
        """Run every block and write its reports; returns the number of failures."""
        failed = 0
        with contextlib.ExitStack() as stack:
            names = None if self._on_loopback else stack.enter_context(topology())
            site = Site(names)
            for number, (clients, servers) in enumerate(blocks):
                if not (clients and servers):
                    continue
                at = self._directory
                if len(blocks) > 1:
                    at /= ("as-server", "as-client")[number]
                at.mkdir(parents=True, exist_ok=True)
                matrix = run_matrix(
                    *(site, clients, servers, self._cases, at),
                    repeat=self._repeat,
                    progress=self._show_trial,
                )
                write_reports(matrix, at)
                self._show_summary(matrix, at)
                failed += matrix.failed
        return failed

    def _show_trial(self, client: str, server: str, case: str, outcome: Outcome) -> None:
        style = _STYLES[outcome.result]
        speed = f"{outcome.kbps:.0f} kbps" if outcome.kbps else ""
        self._console.print(
            f"[{style}]{MARKS[outcome.result]}[/] {client} → {server}  {case:<20}"
            f" {outcome.seconds:5.1f} s  {speed}{escape(outcome.reason)}",
        )

    def _show_summary(self, matrix: Matrix, at: Path) -> None:
        table = Table(title="client (row) x server (column)", title_justify="left")
        table.add_column("")
        for server in matrix.servers:
            table.add_column(server.name, overflow="fold")
        for client in matrix.clients:
            row = [client.name]
            for server in matrix.servers:
                lines = []
                for value, mark in MARKS.items():
                    names = [
                        f"{cell.case.abbr}{': ' + cell.details if cell.details else ''}"
                        for cell in matrix.cells[client.name, server.name]
                        if cell.result is value
                    ]
                    if names:
                        lines.append(f"{mark} {' '.join(names)}")
                row.append("\n".join(lines))
            table.add_row(*row)
        self._console.print(table)
        for pair, case, result, why in matrix.reasons():
            self._console.print(f"{MARKS[result]} {pair} {case}: {escape(why)}")
        self._console.print(f"Report: {at / 'index.html'}")
