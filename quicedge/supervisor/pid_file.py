"""The file that names the process to signal."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import structlog

from quicedge.config.atomic_files import atomic_write

log = structlog.get_logger("quicedge.supervisor")


def write_pid_file(name: str | None) -> None:
    """Name this process; a failure is logged."""
    if name is None:
        return
    path = Path(name)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with atomic_write(path, temporary, 0o666) as file:
            file.write(b"%d\n" % os.getpid())
    except OSError as error:
        log.warning("cannot write pid file", path=name, reason=error.strerror)


def remove_pid_file(name: str | None) -> None:
    """Remove it, unless it names another process by now."""
    if name is None:
        return
    with contextlib.suppress(OSError, ValueError):
        if int(Path(name).read_text()) == os.getpid():
            Path(name).unlink()
