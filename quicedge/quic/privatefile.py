"""Files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class PrivateFileError(ValueError):
    """A secret that others can read, or that cannot be read; the message names the file."""


def read_private(path: str | Path) -> bytes:
    """What the file holds; raises PrivateFileError."""
    try:
        with Path(path).open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise PrivateFileError(
                    f"{path}: mode {mode:o}: others than its owner may read or change it "
                    f"(chmod 600 {path})"
                )
            return file.read()
    except OSError as error:
        raise PrivateFileError(f"{path}: {error.strerror}") from error
