"""Whether the state directory can be used, and what is kept in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from quicedge.cli.findings.finding import Finding, Level
from quicedge.config.schema import Config
from quicedge.supervisor.state import StateDirectory, StateError, kept_secret

_KEY = "state_directory"


def of_config(config: Config) -> Iterator[Finding]:
    """Check the configured directory; call this as the user that runs the supervisor."""
    if config.state_directory is None:
        return
    path = Path(config.state_directory)
    if is_new(config):
        yield _new(path)
        return
    try:
        secret = kept_secret(StateDirectory(path))
    except StateError as error:
        yield Finding(
            Level.ERROR, _KEY, str(error).removeprefix(f"{_KEY}: "),
            f"chown {os.geteuid()} {path}; chmod 700 {path}; files in it have mode 600",
        )  # fmt: skip
        return
    kept = "no secret yet" if secret is None else "the secret of tokens and resets is kept"
    yield Finding(Level.OK, _KEY, f"{path}: {kept}")


def is_new(config: Config) -> bool:
    """Whether the directory is configured and still to be created."""
    return config.state_directory is not None and not Path(config.state_directory).exists()


def _new(path: Path) -> Finding:
    if path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        return Finding(Level.OK, _KEY, f"{path} will be created")
    return Finding(
        Level.ERROR, _KEY, f"{path} cannot be created: {path.parent} is not a "
        "directory that this user can write to", f"mkdir -p -m 700 {path}",
    )  # fmt: skip
