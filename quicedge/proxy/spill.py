"""A queue of bytes that continues on disk when it gets long."""

from __future__ import annotations

import errno
import os
from collections import deque
from dataclasses import dataclass
from typing import IO

from quicedge.config.filterlimits import BUFFERED_IN_MEMORY, BUFFERED_ON_DISK
from quicedge.shares import Client, Pool


@dataclass(frozen=True)
class SpillPools:
    """What the buffers of a worker share, in bytes."""

    memory: Pool
    disk: Pool

    @classmethod
    def of_worker(cls) -> SpillPools:
        return cls(Pool(BUFFERED_IN_MEMORY), Pool(BUFFERED_ON_DISK))


class Spill:
    """Bytes in the order in which they were appended; up to `memory` of them are not on disk.

    The file has no name, and is gone when it is closed. It is written and read within the event
    loop: that goes to the page cache, as in other servers. `close` must be called last.
    """

    __slots__ = (
        "_client", "_file", "_in_memory", "_memory", "_pieces", "_pools", "_read_at", "_written",
        "size",
    )  # fmt: skip

    def __init__(self, memory: int, pools: SpillPools, client: Client) -> None:
        self.size = 0
        """Bytes that can be read."""
        self._memory = memory
        self._pools = pools
        self._client = client
        self._pieces: deque[bytes] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._read_at = 0
        self._written = 0

    @property
    def may_grow(self) -> bool:
        """Whether there is room for more, for this client."""
        return self._pools.disk.may_take(self._client)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; raises OSError if the disk is full."""
        size = len(data)
        if (
            self._read_at == self._written
            and self._in_memory + size <= self._memory
            and self._pools.memory.may_take(self._client)
        ):
            self._pieces.append(data)
            self._in_memory += size
            self._pools.memory.take(self._client, size)
        else:
            self._write(data)
            self._written += size
            self._pools.disk.take(self._client, size)
        self.size += size

    def read(self, most: int) -> bytes:
        """Take up to `most` bytes from the beginning, or one whole piece from memory."""
        if self._pieces:
            data = self._pieces.popleft()
            self._in_memory -= len(data)
            self._pools.memory.give_back(self._client, len(data))
        elif self._file is not None and self._read_at < self._written:
            length = min(most, self._written - self._read_at)
            data = os.pread(self._file.fileno(), length, self._read_at)
            if len(data) < length:
                raise OSError(errno.EIO, "the buffer file is incomplete")
            self._read_at += len(data)
            if self._read_at == self._written:
                self._empty_file()
        else:
            return b""
        self.size -= len(data)
        return data

    def _write(self, data: bytes) -> None:
        if self._file is None:
            import tempfile

            file = tempfile.TemporaryFile(prefix="quicedge-", buffering=0)  # noqa: SIM115
            self._file = file
        if os.pwrite(self._file.fileno(), data, self._written) < len(data):
            raise OSError(errno.ENOSPC, "the disk is full")

    def _empty_file(self) -> None:
        """All of the file is read: begin at its start again."""
        if self._file is not None:
            self._file.truncate(0)
        self._pools.disk.give_back(self._client, self._written)
        self._read_at = self._written = 0

    def close(self) -> None:
        self._pools.memory.give_back(self._client, self._in_memory)
        self._in_memory = 0
        self._pieces.clear()
        self._empty_file()
        file, self._file = self._file, None
        if file is not None:
            file.close()
        self.size = 0
