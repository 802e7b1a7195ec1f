"""`quicedge top`: the connections of a running edge in a terminal, live."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from quicedge.cli.adminclient import AdminError, admin_client, admin_options
from quicedge.cli.topscreen import KEYS, Screen


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Read keys without Enter in this context."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def split_keys(text: str) -> list[str]:
    """Split terminal input into keys: single characters or known escape sequences."""
    keys = []
    while text:
        known = (key for key in KEYS if text.startswith(key))
        key = max(known, key=len, default=text[0])
        keys.append(key)
        text = text[len(key) :]
    return keys


@click.command()
@admin_options
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(0.1, 60))
@click.option("--once", is_flag=True, help="Print the table once and exit.")
@click.option("--sort", "sort", default="created_at", show_default=True, metavar="FIELD")
def command(admin: str, token_file: Any, interval: float, once: bool, sort: str) -> None:
    """Show the connections of a running edge, live.

    If the output is not a terminal, all connections are printed once, with all columns.
    """
    console = Console()
    screen = Screen(admin_client(admin, token_file), console.width, console.height)
    screen.sort = f"-{sort}"
    try:
        if not sys.stdout.isatty():
            click.echo(screen.plain())
            return
        if once or not sys.stdin.isatty():
            screen.height = 1000
            screen.cursor = -1
            console.print(screen.table())
            return
        with (
            _single_keys(),
            Live(screen.draw(), console=console, screen=True, auto_refresh=False) as live,
        ):
            _run(screen, console, live, interval)
    except AdminError as error:
        raise click.ClickException(str(error)) from error


def _run(screen: Screen, console: Console, live: Live, interval: float) -> None:
    """Redraw at each interval and after each key, until quit."""
    due = time.monotonic() + interval
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))
        if ready:
            # Bypass the buffer of `sys.stdin`, which `select` does not see.
            typed = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
            if not typed or not all(screen.press(key) for key in split_keys(typed)):
                return
        due = time.monotonic() + interval
        screen.width, screen.height = console.size
        live.update(screen.draw(), refresh=True)
