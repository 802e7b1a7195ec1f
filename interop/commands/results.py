"""`python -m interop results`."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from interop.runner.implementations import OURS
from interop.runner.results import summarize


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.File("w"), default="-", metavar="FILE")
def command(directory: Path, output: TextIO) -> None:
    """Summarize all runs below DIRECTORY in one Markdown page."""
    output.write(summarize(directory, OURS))
