"""`python -m interop tls`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click
import structlog

from interop.runner.implementations import NotHere
from interop.tls.matrix import CASES, row, run_stack, table
from interop.tls.stacks import STACKS

BEGIN, END = "<!-- python -m interop tls: begin -->\n", "<!-- end -->\n"


@click.command()
@click.option(
    "-s", "--stack", "names", multiple=True, type=click.Choice([*STACKS]), help="Only these."
)
@click.option(
    "--write", "page", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put the table into a page, between its marks.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show what clients that fail say.")
def command(names: tuple[str, ...], page: Path | None, verbose: bool) -> None:
    """What other TLS stacks negotiate with quicedge, as a Markdown table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = []
    for name in names or STACKS:
        try:
            stack = STACKS[name]()
        except NotHere as missing:
            click.echo(f"{name}: not here: {missing}", err=True)
            continue
        found = asyncio.run(run_stack(stack))
        rows.append(row(stack, found))
        click.echo(rows[-1], err=True)
        for case in CASES:
            outcome = found[case]
            if verbose and outcome.code not in (0, 127):
                click.echo(f"{name}, {case}: exit code {outcome.code}\n{outcome.output}", err=True)
    text = table(rows)
    if page is None:
        click.echo(text, nl=False)
        return
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"{page}: has no marks {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{BEGIN}{text}{END}{after}")
