"""Chunked reading of trace files, compressed or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from quicedge.config.tracelimits import QLOG_READ_SIZE

_GZIP_MAGIC = b"\x1f\x8b"


class Source:
    """A trace file, read once from front to back.

    `progress` is called with the bytes of the file on disk read so far. A truncated or damaged
    compressed file ends at the damage; `damage` then describes it.
    """

    def __init__(self, path: str | Path, progress: Callable[[int], None] | None = None) -> None:
        self.path = Path(path)
        self.damage: str | None = None
        self.ended = False
        self.offset = 0
        """Uncompressed bytes returned so far."""
        self._progress = progress
        self._file: IO[bytes] = self.path.open("rb")
        self._stream: IO[bytes] = self._file
        if self._file.read(2) == _GZIP_MAGIC:
            self._stream = cast(IO[bytes], gzip.GzipFile(fileobj=self._file))
        self._file.seek(0)

    @property
    def size(self) -> int:
        """Bytes of the file on disk."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """The next uncompressed chunk; empty at the end."""
        if self.damage is not None:
            return b""
        try:
            # read1 returns data decompressed before the damage; read would discard it.
            data: bytes = self._stream.read1(QLOG_READ_SIZE)  # type: ignore[attr-defined]
        except (EOFError, zlib.error, OSError) as error:
            self.damage = f"compressed data: {error}"
            self.ended = True
            return b""
        self.ended = not data
        self.offset += len(data)
        if self._progress is not None:
            self._progress(self._file.tell())
        return data

    def close(self) -> None:
        self._stream.close()
        self._file.close()
