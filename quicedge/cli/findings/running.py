"""Find an edge that is already running with this configuration."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from quicedge.admin.guard import TokenError, read_token
from quicedge.cli.adminclient import AdminClient, AdminError
from quicedge.config.listeners import Transport
from quicedge.config.schema import Admin

_PROC = Path("/proc")


class RunningEdge(Struct, frozen=True):
    """What is known of the running edge; None: unknown."""

    pid: int
    addresses: list[str] | None = None
    """Bound addresses, `host:port` or `[v6]:port`."""
    workers: int | None = None


def running_edge(admin: Admin, path: str | None) -> RunningEdge | None:
    """The edge that answers at the configured admin address, or whose command line names the file
    at `path`."""
    return _by_admin_api(admin) or (_by_command_line(path) if path is not None else None)


def holders(transport: Transport, family: socket.AddressFamily, port: int) -> list[int]:
    """Processes that hold a port, as far as they are visible."""
    version = "6" if family == socket.AF_INET6 else ""
    table = _PROC / "net" / f"{transport.lower()}{version}"
    inodes = set()
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return [pid for pid in _processes() if inodes & _descriptors(pid)]


def name_of(pid: int) -> str:
    """A process name for operators: `nginx (pid 17)`."""
    with contextlib.suppress(OSError):
        return f"{(_PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    return f"pid {pid}"


def _by_admin_api(admin: Admin) -> RunningEdge | None:
    if not admin.enabled:
        return None
    try:
        token = read_token(admin.token_file) if admin.token_file is not None else None
        status = AdminClient(admin.listen, token).get("/api/v1/status")
        return RunningEdge(
            pid=status["pid"],
            addresses=[listener["address"] for listener in status["listeners"]],
            workers=len(status["workers"]),
        )
    except (AdminError, TokenError, KeyError, TypeError):
        return None  # not running, or something else


def _by_command_line(path: str) -> RunningEdge | None:
    """A `quicedge serve --config` process with this very file."""
    wanted = os.path.realpath(path)
    for pid in _processes():
        with contextlib.suppress(OSError):
            words = (
                (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            )
            if "serve" not in words:
                continue
            directory = os.readlink(_PROC / str(pid) / "cwd")
            for name in _configurations(words):
                if os.path.realpath(os.path.join(directory, name)) == wanted:
                    return RunningEdge(pid=pid)
    return None


def _configurations(words: list[str]) -> Iterator[str]:
    """The values of `-c` and `--config` on a command line."""
    for index, word in enumerate(words[:-1]):
        if word in ("-c", "--config"):
            yield words[index + 1]
        elif word.startswith("--config="):
            yield word.partition("=")[2]


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    return []


def _descriptors(pid: int) -> set[str]:
    """Targets of a process's descriptors; empty when not permitted."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(_PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(_PROC / str(pid) / "fd" / name))
    return found
