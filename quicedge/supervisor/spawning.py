"""How worker processes are created: what a pool of workers asks for, and the portable way."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import quicedge

_PACKAGE_PARENT = str(Path(quicedge.__file__).resolve().parent.parent)


class Process(Protocol):
    """A process that was spawned."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None:
        """Send SIGKILL; raises ProcessLookupError if it has ended."""

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""


class Spawner(Protocol):
    """Creates worker processes."""

    async def spawn(self, entry: str, control_fd: int, inherited_fds: Sequence[int]) -> Process:
        """Start a process that becomes a worker (`worker.process`); raises OSError.

        It has the standard streams (input empty), `control_fd` and `inherited_fds`, under the same
        numbers, and no other descriptor of ours.
        """

    def rest(self) -> None:
        """All workers run: release what is only needed to spawn more."""

    def close(self) -> None:
        """Release everything; there is no worker and no event loop any more."""


class FreshInterpreters:
    """Starts workers with exec: on any system, at the price of importing everything again.

    Nothing is inherited but descriptors; all else, secrets included, comes over the control socket,
    so that none is visible in arguments or environment.
    """

    async def spawn(self, entry: str, control_fd: int, inherited_fds: Sequence[int]) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # do not import from the current directory
            "-m",
            "quicedge.worker",
            str(control_fd),
            entry,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[control_fd, *inherited_fds],
            env=worker_environment(),
            process_group=0,  # Ctrl-C in a terminal is for the supervisor alone
        )

    def rest(self) -> None:
        """Nothing is held between workers."""

    def close(self) -> None:
        """Nothing is held after the last one."""


def worker_environment() -> dict[str, str]:
    """The environment of a worker, which must import the same code as its supervisor."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([_PACKAGE_PARENT, inherited] if inherited else [_PACKAGE_PARENT])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("NOTIFY_SOCKET", None)  # only the supervisor notifies systemd
    return environment
