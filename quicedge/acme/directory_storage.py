"""A storage in a directory, which hosts may share by NFS or another network file system."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Hashable
from pathlib import Path

from quicedge.acme.storage import StorageError
from quicedge.config.atomic_files import atomic_write
from quicedge.quic.privatefile import PrivateFileError, read_private

_TEMPORARY = ".new-"


class DirectoryStorage:
    """Files of mode 0600 in directories of mode 0700, each replaced as a whole.

    The lock is one of the kernel's, which ends with its process; on NFS the server keeps it.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._lock: int | None = None

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        try:
            return read_private(path)
        except PrivateFileError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise StorageError(str(error)) from error

    def write(self, name: str, value: bytes) -> None:
        path = self._root / name
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        try:
            self._make(path.parent)
            with atomic_write(path, temporary, 0o600, durable=True) as file:
                file.write(value)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def remove(self, name: str) -> None:
        path = self._root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def versions(self, folder: str) -> dict[str, Hashable]:
        path = self._root / folder
        found: dict[str, Hashable] = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not entry.name.startswith(_TEMPORARY) and entry.is_file():
                        status = entry.stat()
                        found[entry.name] = status.st_mtime_ns, status.st_size, status.st_ino
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        return found

    def lock(self) -> bool:
        if self._lock is not None:
            return True
        path = self._root / "lock"
        try:
            self._make(self._root)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        self._lock = fd
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        self.unlock()

    def _make(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
