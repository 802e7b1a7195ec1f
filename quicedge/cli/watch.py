"""`quicedge serve --reload`: start the edge anew when the code of its application changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

POLL = 0.3
"""Seconds between two looks at the files."""
GRACE = 1.0
"""Seconds that requests have to end before the edge is stopped at once."""
MAX_FILES = 20_000
"""Files that are watched; more are not a project."""


def sources(directory: Path) -> dict[str, int]:
    """Modification times of the Python files below a directory, in nanoseconds.

    Hidden directories and virtual environments are left out.
    """
    found: dict[str, int] = {}
    for path in _python_files(directory):
        try:
            found[path] = os.stat(path).st_mtime_ns
        except OSError:
            continue  # removed meanwhile
        if len(found) == MAX_FILES:
            break
    return found


def _python_files(directory: Path) -> Iterator[str]:
    for where, directories, files in os.walk(directory):
        directories[:] = [
            name
            for name in directories
            if not name.startswith((".", "__pycache__"))
            and not os.path.exists(os.path.join(where, name, "pyvenv.cfg"))
        ]
        yield from (os.path.join(where, name) for name in files if name.endswith(".py"))


def serve_with_reload(arguments: Sequence[str], directory: Path) -> NoReturn:
    """Run `quicedge` with `arguments` until a signal, and again after each change.

    An edge that ends by itself, such as for a syntax error, is started again after the next change.
    """
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    command = [sys.executable, "-m", "quicedge", *arguments]
    # A group of its own: Ctrl-C reaches it through us alone, so that it drains once.
    child = subprocess.Popen(command, process_group=0)
    seen = sources(directory)
    while not stopping:
        time.sleep(POLL)
        now = sources(directory)
        if now == seen:
            continue
        changed = sorted(path for path, _ in now.items() ^ seen.items())
        seen = now
        click.echo(f"{os.path.relpath(changed[0])} has changed; starting again", err=True)
        _stop(child)
        child = subprocess.Popen(command, process_group=0)
    _stop(child)
    sys.exit(child.returncode)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Drain for a moment, then stop at once: the second SIGTERM does not wait."""
    for _ in range(2):
        if child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    child.wait()
