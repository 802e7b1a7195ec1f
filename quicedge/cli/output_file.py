"""A file that a command writes for its user."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import click

from quicedge.config.atomic_files import atomic_write


class OutputFile:
    """Where text goes: a file, which is written whole or not at all, or a device or pipe.

    A symbolic link stays one: what it points to is written.
    """

    def __init__(self, path: Path, *, may_replace: bool, never: Path) -> None:
        """Raises UsageError where nothing could be written.

        `never`: a file that the command reads, which is not replaced.
        """
        self.path = Path(os.path.realpath(path))
        self._existing = _status(self.path)
        if self._existing is None:
            if not self.path.parent.is_dir():
                raise click.UsageError(f"{path}: {self.path.parent} is no directory")
        elif self._is_replaced():
            if never.exists() and self.path.samefile(never):
                raise click.UsageError(f"{path} is what is read")
            if not may_replace:
                raise click.UsageError(f"{path} exists; --force overwrites it")
        directory = self.path.parent if self._is_replaced() else self.path
        if not os.access(directory, os.W_OK):
            raise click.UsageError(f"{path}: {directory} is not writable")

    def is_same(self, other: OutputFile) -> bool:
        """Whether one would replace the other."""
        return self._is_replaced() and self.path == other.path

    def write(self, text: str) -> None:
        """Raises OSError."""
        if not self._is_replaced():
            with open(self.path, "w", encoding="utf-8") as device:
                device.write(text)
            return
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        mode = 0o666 if self._existing is None else stat.S_IMODE(self._existing.st_mode)
        with atomic_write(self.path, temporary, mode) as file:
            file.write(text.encode())
            if self._existing is not None:
                # The umask is for new files.
                os.fchmod(file.fileno(), mode)

    def _is_replaced(self) -> bool:
        return self._existing is None or stat.S_ISREG(self._existing.st_mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
