"""`python -m interop list`."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape

from interop.commands.peers import Peers, peer_option
from interop.runner.cases import CASES
from interop.runner.implementations import NotHere


@click.command()
@peer_option
def command(peers: Peers) -> None:
    """Show the cases and the implementations, and which of them are here."""
    console = Console(highlight=False, soft_wrap=True)
    for case in CASES:
        where = "" if case.loopback else "  [dim]namespaces only[/]"
        console.print(f"{case.name:<20} {case.abbr:<4} {case.desc}{where}")
    console.print()
    for name in peers.names:
        try:
            peer = peers.find(name)
        except NotHere as missing:
            console.print(f"{name:<20} [dim]not here: {escape(str(missing))}[/]")
            continue
        roles = " ".join(role for role in ("client", "server") if getattr(peer, role))
        console.print(f"{name:<20} {roles:<14} {peer.version}")
