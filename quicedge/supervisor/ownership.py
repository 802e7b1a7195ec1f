"""Ownership of log files for workers that run as another user."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import structlog

from quicedge.config.schema import Log
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


class OwnerChange(NamedTuple):
    """A log file whose owner was changed, and its previous owner."""

    path: str
    device: int
    inode: int
    uid: int
    gid: int
    created: bool
    """The file did not exist before."""


def chown_logs(config: Log, identity: Identity | None) -> list[OwnerChange]:
    """Create the log files and change their owner to the workers' user, so that it can append.

    Failures are logged and skipped; workers report what they cannot open. Returns the changes,
    for `restore_owners`.
    """
    changes: list[OwnerChange] = []
    if identity is None:
        return changes
    for path in {config.file, config.access_file}:
        if path is None:
            continue
        try:
            change = _chown(path, identity)
        except OSError as error:
            log.warning("cannot change owner of log file", file=path, error=str(error))
            continue
        if change is not None:
            changes.append(change)
    return changes


def restore_owners(changes: list[OwnerChange]) -> None:
    """Undo `chown_logs`, for a configuration that was rejected."""
    for change in changes:
        try:
            _restore(change)
        except OSError as error:
            log.warning("cannot restore owner of log file", file=change.path, error=str(error))


def _chown(path: str, identity: Identity) -> OwnerChange | None:
    # Whoever may write to the directory could place a link to any file of root there.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    created = False
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o640)
        created = True
    try:
        status = os.fstat(fd)
        is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_plain or (status.st_uid, status.st_gid) == (identity.uid, identity.gid):
            return None
        os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)
    return OwnerChange(path, status.st_dev, status.st_ino, status.st_uid, status.st_gid, created)


def _restore(change: OwnerChange) -> None:
    fd = os.open(change.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (change.device, change.inode):
            return  # replaced by another file
        os.fchown(fd, change.uid, change.gid)
        if change.created and status.st_size == 0:
            os.unlink(change.path)
    finally:
        os.close(fd)
