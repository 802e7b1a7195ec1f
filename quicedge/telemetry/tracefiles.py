"""Trace files on disk, written by one thread: a slow disk drops events instead of blocking."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from pathlib import Path

import structlog

from quicedge.config.limits import LOG_CLOSE_TIMEOUT
from quicedge.config.schema import Qlog
from quicedge.config.tracelimits import (
    QLOG_BUFFER,
    QLOG_FLUSH_INTERVAL,
    QLOG_MAX_OPEN,
    QLOG_PRUNE_EVERY,
)

SUFFIX = ".sqlog"

log = structlog.get_logger(__name__)


def trace_directory(config: Qlog) -> str | None:
    """The trace directory: configured, or from the environment variable QLOGDIR."""
    return config.directory or os.environ.get("QLOGDIR") or None


class TraceFile:
    """One open trace file (`trace.Sink`)."""

    drop_reason = "disk too slow"
    __slots__ = ("_files", "closed", "fd", "lost_bytes", "name")

    def __init__(self, files: TraceFiles, name: str) -> None:
        self._files = files
        self.name = name
        self.fd = -1
        """Opened by the writer thread on the first write."""
        self.closed = False
        self.lost_bytes = 0

    def write(self, lines: bytes) -> bool:
        return self._files.put(self, lines)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._files.put_end(self)


class TraceFiles:
    """The traces of this process in one directory, shared with other processes.

    When the directory exceeds `max_total` bytes, the oldest files are removed. At most
    `QLOG_BUFFER` bytes wait for the disk; further writes are dropped and counted.
    """

    def __init__(self, directory: str, *, max_total: int) -> None:
        self.directory = Path(directory)
        self.dropped = 0
        """Dropped writes, each of one event or of a run of packets."""
        self.failed = 0
        """Failed writes."""
        self.open = 0
        self._max_total = max_total
        self._queue: deque[tuple[TraceFile, bytes]] = deque()
        # Each counter has one writer: the caller's thread the first, ours the second.
        self._accepted = 0
        self._settled = 0
        self._since_pruned = QLOG_PRUNE_EVERY
        self._wake = threading.Event()
        self._closing = False
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="qlog-writer", daemon=True)
        self._thread.start()

    def new(self, name: str) -> TraceFile | None:
        """A new trace file, created on its first write; None when too many are open."""
        if self.open >= QLOG_MAX_OPEN:
            return None
        self.open += 1
        return TraceFile(self, name + SUFFIX)

    def put(self, file: TraceFile, lines: bytes) -> bool:
        if self._accepted - self._settled + len(lines) > QLOG_BUFFER:
            self.dropped += 1
            return False
        self._accepted += len(lines)
        self._queue.append((file, lines))
        if not self._wake.is_set():
            self._wake.set()
        return True

    def put_end(self, file: TraceFile) -> None:
        self.open -= 1
        self._queue.append((file, b""))
        self._wake.set()

    def close(self) -> None:
        """Write pending lines, for `LOG_CLOSE_TIMEOUT` at most."""
        self._closing = True
        self._wake.set()
        self._thread.join(LOG_CLOSE_TIMEOUT)

    # --- the writer thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            self._write_waiting()
            if closing:
                return
            # Batch writes; a killed process loses no more than this.
            time.sleep(QLOG_FLUSH_INTERVAL)

    def _write_waiting(self) -> None:
        queue = self._queue
        while queue:
            waiting: dict[TraceFile, list[bytes]] = {}
            ended = []
            for _ in range(len(queue)):
                file, lines = queue.popleft()
                if lines:
                    waiting.setdefault(file, []).append(lines)
                else:
                    ended.append(file)
            for file, chunks in waiting.items():
                self._append(file, b"".join(chunks))
            for file in ended:
                if file.fd >= 0:
                    os.close(file.fd)
                    file.fd = -1

    def _append(self, file: TraceFile, data: bytes) -> None:
        try:
            if file.fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                # Traces contain client addresses and requests: not world-readable.
                file.fd = os.open(self.directory / file.name, flags, 0o640)
            view = memoryview(data)
            while view:
                view = view[os.write(file.fd, view) :]
        except OSError as error:
            self.failed += 1
            file.lost_bytes += len(data)
            if not self._warned:
                self._warned = True
                log.warning("cannot write trace", file=file.name, error=str(error))
        else:
            self._warned = False
        self._settled += len(data)
        self._since_pruned += len(data)
        if self._since_pruned >= QLOG_PRUNE_EVERY:
            self._since_pruned = 0
            self._prune()

    def _prune(self) -> None:
        """Remove the oldest traces until the limit is met; the newest always stays."""
        found = []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                        stat = entry.stat(follow_symlinks=False)
                        found.append((stat.st_mtime, stat.st_size, entry.path))
        except OSError:
            return
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found)[:-1]:
            if total <= self._max_total:
                break
            try:
                os.unlink(path)
                total -= size
            except OSError:
                continue
