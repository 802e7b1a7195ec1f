"""Files that only their owner may read, or root and a group of ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class PrivateFileError(ValueError):
    """A secret that others can read, or that cannot be read; the message names the file."""


def is_private(status: os.stat_result) -> bool:
    """Whether only its owner may read or change a file.

    A file of root's that a group of ours may read is as good: so are secrets mounted into pods
    (`fsGroup`), and keys of mode 640 that a distribution's group such as ssl-cert may read.
    """
    others = status.st_mode & 0o077
    if others == 0o040 and status.st_uid == 0:
        return os.geteuid() != 0 and status.st_gid in {os.getegid(), *os.getgroups()}
    return not others


def read_private(path: str | Path) -> bytes:
    """What the file holds; raises PrivateFileError."""
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if not is_private(status):
                mode = stat.S_IMODE(status.st_mode)
                raise PrivateFileError(
                    f"{path}: mode {mode:o}: others than its owner may read or change it "
                    f"(chmod 600 {path})"
                )
            return file.read()
    except OSError as error:
        raise PrivateFileError(f"{path}: {error.strerror}") from error
