"""The state directory: what must outlive the processes of the edge.

Files have mode 0600, directories 0700, and both belong to the supervisor's user; workers get from
the supervisor what they need. A file is replaced whole or not at all, also when the machine fails.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

import structlog

from quicedge.config.atomic_files import atomic_write
from quicedge.config.limits import STATE_FILE_MAX
from quicedge.config.schema import Config

log = structlog.get_logger(__name__)

DEFAULT_DIRECTORY = Path("/var/lib/quicedge")
"""Used when it exists and belongs to the supervisor's user."""

SECRET_LENGTH = 32
_SECRET = "secret"


class StateError(Exception):
    """The state directory or a file in it is unusable or unsafe; the message names it."""


class StateDirectory:
    """Files by name; names may have directories, as in `acme/account.key`.

    The constructor creates the directory if it is missing, or raises StateError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            found = path.stat()
        except OSError as error:
            raise StateError(f"state_directory: {path}: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise StateError(f"state_directory: {path} is not a directory")
        if found.st_uid != os.geteuid():
            raise StateError(
                f"state_directory: {path} belongs to user {found.st_uid}; "
                f"it must belong to user {os.geteuid()}, who runs the supervisor"
            )
        if found.st_mode & 0o022:
            raise StateError(
                f"state_directory: {path}: mode {found.st_mode & 0o777:03o} lets others write "
                "there; it must be 700"
            )
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            raise StateError(f"state_directory: {path} cannot be written to")

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none; raises StateError."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(STATE_FILE_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"state_directory: {path}: {error.strerror}") from error
        if mode & 0o077:
            raise StateError(f"state_directory: {path}: mode {mode & 0o777:03o}, must be 600")
        if len(data) > STATE_FILE_MAX:
            raise StateError(f"state_directory: {path} is larger than {STATE_FILE_MAX} bytes")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file; raises StateError, and then it is unchanged."""
        path = self.path / name
        # The name of a file that an earlier process left behind halfway must not stop us.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            _make_directories(self.path, path.parent)
            with atomic_write(path, temporary, 0o600, durable=True) as file:
                file.write(data)
        except OSError as error:
            raise StateError(f"state_directory: {path}: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Remove a file if there is one; raises StateError."""
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"state_directory: {path}: {error.strerror}") from error


def open_state(config: Config) -> StateDirectory | None:
    """The state directory of a configuration, or the default one; None if there is neither.

    systemd names the default in STATE_DIRECTORY. Raises StateError for a configured directory that
    cannot be used.
    """
    if config.state_directory is not None:
        return StateDirectory(Path(config.state_directory))
    # systemd separates several by colons; the first is for us.
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not named and not _is_ours(DEFAULT_DIRECTORY):
        return None
    try:
        return StateDirectory(Path(named) if named else DEFAULT_DIRECTORY)
    except StateError as error:
        log.warning("no state outlives a restart", reason=str(error))
        return None


def load_secret(state: StateDirectory | None) -> bytes:
    """The secret behind tokens and stateless resets: the one kept, or a new one that is kept.

    Raises StateError if what is kept is no secret, or a new one cannot be kept.
    """
    if state is None:
        return secrets.token_bytes(SECRET_LENGTH)
    found = kept_secret(state)
    if found is None:
        found = secrets.token_bytes(SECRET_LENGTH)
        state.write(_SECRET, found)
    return found


def kept_secret(state: StateDirectory) -> bytes | None:
    """The secret that is kept, None if there is none yet; raises StateError if it is no secret."""
    found = state.read(_SECRET)
    if found is not None and len(found) != SECRET_LENGTH:
        raise StateError(
            f"state_directory: {state.path / _SECRET}: {len(found)} bytes, must be "
            f"{SECRET_LENGTH}; remove it, and a new one is made"
        )
    return found


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _make_directories(top: Path, wanted: Path) -> None:
    """Create the directories between `top` and `wanted`, `wanted` included."""
    missing = []
    while wanted != top and not wanted.is_dir():
        missing.append(wanted)
        wanted = wanted.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700)
