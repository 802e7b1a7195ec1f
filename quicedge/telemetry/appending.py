"""Opening a file that lines are appended to, without waiting for anybody."""

from __future__ import annotations

import errno
import os

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY


def open_append(path: str, mode: int = 0o640) -> int:
    """A descriptor whose writes go to the end of `path`, made with `mode` when it is missing.

    A named pipe without a reader would hold up the caller, and with it an event loop, until one
    comes: it raises OSError instead, like everything else that cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads from this pipe", path) from None
        raise
    os.set_blocking(descriptor, True)
    return descriptor
