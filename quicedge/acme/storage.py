"""Where accounts, certificates and challenges are kept, by one host or by all of a fleet."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class StorageError(Exception):
    """The storage cannot be used; the message names it."""


class Storage(Protocol):
    """Named values, and one lock. Calls block; all raise StorageError.

    Names are `FOLDER/NAME`, in characters that a file name may have.
    """

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, value: bytes) -> None:
        """All of the value is there afterwards, or nothing has changed."""

    def remove(self, name: str) -> None: ...

    def versions(self, folder: str) -> dict[str, Hashable]:
        """The names in a folder, without it, and what changes whenever a value does."""

    def lock(self) -> bool:
        """Take the lock, or keep it; False: another host has it, or has taken it."""

    def unlock(self) -> None: ...

    def close(self) -> None: ...
