"""Log files for workers that run as somebody else."""

from __future__ import annotations

import os
import stat

import structlog

from quicedge.config.schema import Log
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


def give_logs(config: Log, identity: Identity | None) -> None:
    """Make the log files and give them to the workers' user, so that it can append to them.

    What cannot be given is left alone and told; the workers will say what they cannot open.
    """
    if identity is None:
        return
    for path in {config.file, config.access_file}:
        if path is None:
            continue
        try:
            _give(path, identity)
        except OSError as error:
            log.warning("log file not given to the workers' user", file=path, error=str(error))


def _give(path: str, identity: Identity) -> None:
    # Whoever may write in the directory could put a link to any file of root's there.
    fd = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640
    )
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)
