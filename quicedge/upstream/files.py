"""Opens files below a directory, and nothing outside of it."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from quicedge.config.filterlimits import STATIC_LISTED
from quicedge.config.limits import STATIC_MAX_DEPTH, STATIC_MAX_LINKS
from quicedge.http.target import normal_path

INDEX = b"index.html"


class NotServed(Exception):
    """The file does not exist or is not served; clients see no difference."""


class IsDirectory(Exception):
    """A directory was requested without a trailing slash."""


@dataclass(slots=True)
class OpenFile:
    """A regular file, open for reading. The caller must close `descriptor`."""

    descriptor: int
    name: bytes
    """The last path segment, or the name of the index file."""
    status: os.stat_result

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a directory."""

    name: bytes
    is_directory: bool
    size: int
    modified: float
    """Seconds since 1970."""


class Directory:
    """A directory whose files can be opened by request path.

    Each name is looked up in its open parent directory, never by a whole path, so that concurrent
    renames cannot lead outside. Symbolic links are followed if they are relative and stay below the
    directory. The constructor raises OSError if there is no such directory.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def open(self, target: bytes, index: bytes = INDEX) -> OpenFile:
        """Open the file for a request path (with its query); `index`: that of a directory.

        Raises NotServed, IsDirectory, or OSError if the machine is out of resources.
        """
        path = normal_path(target)
        names = _names(path)
        as_directory = path.endswith(b"/") or not names
        found = self._walk([*names, index] if as_directory else names)
        if found is not None:
            return found
        if as_directory:  # the index is a directory itself
            raise NotServed
        raise IsDirectory

    def entries(self, target: bytes) -> list[Entry]:
        """What is in the directory of a request path, dot files left out, at most
        STATIC_LISTED of them; raises NotServed or OSError like `open`."""
        names = _names(normal_path(target))
        found: list[Entry] = []
        if self._walk(names, lambda at: found.extend(self._entries(names, at))) is None:
            return found
        raise NotServed

    def _entries(self, names: Sequence[bytes], descriptor: int) -> Iterator[Entry]:
        """The entries of the open directory that names lead to."""
        count = 0
        with os.scandir(descriptor) as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                count += 1
                if count > STATIC_LISTED:
                    return
                name = os.fsencode(item.name)
                try:
                    linked = item.is_symlink()
                    status = self._linked([*names, name]) if linked else item.stat()
                except (NotServed, OSError):  # gone, or a link that is not served
                    continue
                is_directory = stat.S_ISDIR(status.st_mode)
                if is_directory or stat.S_ISREG(status.st_mode):
                    yield Entry(name, is_directory, status.st_size, status.st_mtime)

    def _linked(self, names: Sequence[bytes]) -> os.stat_result:
        """The status of what a symbolic link leads to; raises NotServed."""
        found: list[os.stat_result] = []
        file = self._walk(names, lambda at: found.append(os.fstat(at)))
        if file is None:
            return found[0]
        file.close()
        return file.status

    def _walk(
        self, names: Sequence[bytes], visit: Callable[[int], None] | None = None
    ) -> OpenFile | None:
        """Open the file that names lead to; None if it is a directory, which is visited then."""
        opened: list[int] = []
        pending = deque(names)
        asked = names[-1] if names else b""
        links = 0
        try:
            while pending:
                name = pending.popleft()
                if name == b"..":  # from a link; there are none in `names`
                    if not opened:
                        raise NotServed
                    os.close(opened.pop())
                    continue
                here = opened[-1] if opened else self._descriptor
                mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    link = os.readlink(name, dir_fd=here)
                    if links > STATIC_MAX_LINKS or link.startswith(b"/"):
                        raise NotServed
                    parts = [part for part in link.split(b"/") if part not in (b"", b".")]
                    pending.extendleft(reversed(parts))
                elif stat.S_ISDIR(mode):
                    if len(opened) == STATIC_MAX_DEPTH:
                        raise NotServed
                    opened.append(os.open(name, _DIRECTORY_FLAGS, dir_fd=here))
                elif stat.S_ISREG(mode) and not pending:
                    return _open_file(name, here, asked)
                else:
                    raise NotServed
            if visit is not None:
                visit(opened[-1] if opened else self._descriptor)
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise
            raise NotServed from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return None


def _names(path: bytes) -> list[bytes]:
    """The names in a path in normal form; raises NotServed."""
    names = [unquote_to_bytes(part) for part in path.split(b"/") if part]
    # No dot files: `.git` and `.env` are often deployed by accident.
    if any(name.startswith(b".") or b"/" in name or b"\0" in name for name in names):
        raise NotServed
    return names


_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: if a FIFO replaces the file meanwhile, opening it must not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO))
"""Errors that say nothing about the requested name."""


def _open_file(name: bytes, here: int, asked: bytes) -> OpenFile:
    descriptor = os.open(name, _FILE_FLAGS, dir_fd=here)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotServed
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(descriptor, asked, status)
