"""Where the control socket of an edge is, for the edge and for the commands that use it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from quicedge.config.schema import Config

_NAME = "control.sock"
_RUNTIME = Path("/run/quicedge")
"""RuntimeDirectory= of the systemd unit."""


def control_path(config: Config, config_path: str | None) -> Path:
    """The socket of an edge that starts with this configuration.

    Without `control_socket` it is in the runtime directory that systemd made, else in the state
    directory, else in a directory of the user, by the name of the configuration file.
    """
    if config.control_socket is not None:
        return Path(config.control_socket)
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if runtime:
        return Path(runtime) / _NAME
    if config.state_directory is not None:
        return Path(config.state_directory) / _NAME
    return _of_user(config_path)


def known_paths(config: Config, config_path: str | None) -> Iterator[Path]:
    """Where a command finds the socket of a running edge, likeliest first."""
    yield control_path(config, config_path)
    if config.control_socket is None:
        yield _RUNTIME / _NAME
        yield user_state_directory() / _NAME


def user_state_directory() -> Path:
    """The state directory of an edge without a configuration file that has to keep something."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/quicedge")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "quicedge"


def prepare_directory(path: Path) -> None:
    """Create the directory of a socket for its owner alone; raises OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    found = path.parent.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path.parent} is not a directory")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        # Whoever may write there could put a socket in the place of ours.
        raise PermissionError(f"{path.parent} belongs to, or can be written by, other users")


def _of_user(config_path: str | None) -> Path:
    name = "default"
    if config_path is not None:
        name = hashlib.sha256(os.path.realpath(config_path).encode()).hexdigest()[:16]
    return Path(f"/tmp/quicedge-{os.geteuid()}") / f"{name}.sock"
