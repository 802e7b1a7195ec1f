"""Log files for workers that run as somebody else."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import structlog

from quicedge.config.schema import Log
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


class OwnerChange(NamedTuple):
    """A log file with a new owner, and how it was before."""

    path: str
    device: int
    inode: int
    uid: int
    gid: int
    made: bool
    """It was not there before."""


def give_logs(config: Log, identity: Identity | None) -> list[OwnerChange]:
    """Make the log files and give them to the workers' user, so that it can append to them.

    What cannot be given is left alone and told; the workers will say what they cannot open.
    Returns what changed, for `restore_owners`.
    """
    changes: list[OwnerChange] = []
    if identity is None:
        return changes
    for path in {config.file, config.access_file}:
        if path is None:
            continue
        try:
            change = _give(path, identity)
        except OSError as error:
            log.warning("log file not given to the workers' user", file=path, error=str(error))
            continue
        if change is not None:
            changes.append(change)
    return changes


def restore_owners(changes: list[OwnerChange]) -> None:
    """Undo `give_logs`, for a configuration that is not used after all."""
    for change in changes:
        try:
            _restore(change)
        except OSError as error:
            log.warning("owner of log file not restored", file=change.path, error=str(error))


def _give(path: str, identity: Identity) -> OwnerChange | None:
    # Whoever may write in the directory could put a link to any file of root's there.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    made = False
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o640)
        made = True
    try:
        status = os.fstat(fd)
        is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_plain or (status.st_uid, status.st_gid) == (identity.uid, identity.gid):
            return None
        os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)
    return OwnerChange(path, status.st_dev, status.st_ino, status.st_uid, status.st_gid, made)


def _restore(change: OwnerChange) -> None:
    fd = os.open(change.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (change.device, change.inode):
            return  # another file of that name
        os.fchown(fd, change.uid, change.gid)
        if change.made and status.st_size == 0:
            os.unlink(change.path)
    finally:
        os.close(fd)
