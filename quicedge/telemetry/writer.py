"""A bounded, asynchronous writer of log lines: only its own thread waits for the disk."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque

from quicedge.config.limits import LOG_BUFFER, LOG_CLOSE_TIMEOUT, LOG_WRITE_SIZE
from quicedge.telemetry.appending import open_append

_WRITE_RETRY = 1.0
"""Seconds between attempts to write to a full pipe."""

_WRITE_MAX = 1024 * 1024
"""Bytes per write; each has to wait for the GIL when the loop is busy."""

_MAX_FILES_WAITING = 4
"""Pending reopenings, each with a descriptor."""


class LineWriter:
    """Appends lines to a file, or to standard error when `path` is None.

    `write` never blocks: lines wait in a buffer of at most `LOG_BUFFER` bytes; lines that do not
    fit and failed writes are dropped and counted. Several processes may append to one file: each
    write consists of whole lines and the file is opened with O_APPEND.

    `flush_interval`: how long, in seconds, a line may wait to be batched with others.
    """

    def __init__(
        self, path: str | None, *, flush_interval: float = 0.0, buffer_size: int = LOG_BUFFER
    ) -> None:
        self.path = path
        self._fd = _open(path)
        self._flush_interval = flush_interval
        self._buffer_size = buffer_size
        # Lines, and between them file descriptors to switch to. Appending and popping are
        # atomic, so neither side takes a lock.
        self._queue: deque[bytes | int] = deque()
        # Each counter has one writer: the first three the caller's thread, the rest ours.
        self._accepted_bytes = 0
        self._refused_lines = 0
        self._files_opened = 0
        self._settled_bytes = 0
        self._failed_lines = 0
        self._files_used = 0
        self._torn = False
        self._wake = threading.Event()
        self._flush_now = threading.Event()
        self._closed = False
        # Daemon thread: a hanging disk must not delay the exit of the process.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines dropped since the start."""
        return self._refused_lines + self._failed_lines

    def write(self, line: bytes) -> bool:
        """Queue one line, newline included; False when the buffer is full."""
        waiting = self._accepted_bytes - self._settled_bytes
        if waiting + len(line) > self._buffer_size or self._closed:
            self._refused_lines += 1
            return False
        self._accepted_bytes += len(line)
        self._queue.append(line)
        if not self._wake.is_set():
            self._wake.set()
        if waiting >= LOG_WRITE_SIZE and not self._flush_now.is_set():
            self._flush_now.set()
        return True

    def reopen(self) -> None:
        """Reopen the file by name, after a rotation by renaming.

        Earlier lines go to the old file, later ones to the new. Raises OSError when it cannot be
        opened; the old file then stays in use.
        """
        if self.path is None:
            return
        if self._files_opened - self._files_used >= _MAX_FILES_WAITING:
            raise OSError(f"{self.path}: earlier reopenings are still pending")
        self._queue.append(_open(self.path))
        self._files_opened += 1
        self._wake.set()

    def close(self, timeout: float = LOG_CLOSE_TIMEOUT) -> None:
        """Write pending lines, for `timeout` seconds at most."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._flush_now.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            if self._flush_interval:
                self._flush_now.wait(self._flush_interval)
            # Cleared before the queue is read: a later line sets them again or is read below.
            self._wake.clear()
            self._flush_now.clear()
            self._drain()
        self._drain()
        if self.path is not None:
            os.close(self._fd)

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            lines: list[bytes] = []
            size = 0
            while queue and size < _WRITE_MAX and isinstance(queue[0], bytes):
                line = queue.popleft()
                assert isinstance(line, bytes)
                lines.append(line)
                size += len(line)
            if lines:
                self._write_out(b"".join(lines))
                self._settled_bytes += size
            if queue and isinstance(queue[0], int):
                os.close(self._fd)
                self._fd = int(queue.popleft())
                self._files_used += 1
                self._torn = False

    def _write_out(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        done = 0
        while done < len(data):
            try:
                done += os.write(self._fd, data[done:] if done else data)
            except BlockingIOError:
                # Standard error is non-blocking.
                select.select([], [self._fd], [], _WRITE_RETRY)
            except OSError:
                # Disk full or broken pipe: only the counter can report it.
                self._failed_lines += data.count(b"\n", done)
                break
        if done:
            self._torn = data[done - 1 : done] != b"\n"


def _open(path: str | None) -> int:
    return sys.stderr.fileno() if path is None else open_append(path)
