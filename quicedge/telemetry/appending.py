"""Open files for appending, without blocking on a named pipe."""

from __future__ import annotations

import errno
import os

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY


def open_append(path: str, mode: int = 0o640) -> int:
    """Open `path` for appending, creating it with `mode` if it is missing; raises OSError.

    Opening a named pipe without a reader, which would block the event loop, is an error too.
    """
    try:
        descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "pipe has no reader", path) from None
        raise
    os.set_blocking(descriptor, True)
    return descriptor
