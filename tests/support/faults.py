"""Faults that a running edge cannot be given from outside: they come with its interpreter.

A directory on PYTHONPATH holds a `sitecustomize` that obeys files beside it: `clock` (seconds that
the wall clock is off), `send` (errno of every UDP send). Workers write how many tasks they have
into `tasks-PID`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge

_SITECUSTOMIZE = """
import asyncio, os, socket, threading, time
HERE = os.path.dirname(os.path.abspath(__file__))
wall = time.time

def order(name):
    try:
        with open(os.path.join(HERE, name)) as file:
            return file.read()
    except OSError:
        return ""

def failing(send):
    def instead(self, *arguments):
        number = self.type == socket.SOCK_DGRAM and order("send")
        if number:
            with open(os.path.join(HERE, "failed"), "a") as file:
                file.write(".")
            raise OSError(int(number), os.strerror(int(number)))
        return send(self, *arguments)
    return instead

def tell_tasks():
    while True:
        count = sum(not task.done() for task in list(asyncio.tasks._all_tasks))
        try:
            with open(os.path.join(HERE, f"new-{os.getpid()}"), "w") as file:
                file.write(str(count))
            os.replace(file.name, os.path.join(HERE, f"tasks-{os.getpid()}"))
        except OSError:
            pass  # one of the faults: no descriptor is left
        time.sleep(0.05)

time.time = lambda: wall() + float(order("clock") or 0)
def forked():
    # The edge forks its fork server, which forks the workers.
    global forks
    forks += 1
    if forks == 2:
        socket.socket.sendmsg = failing(socket.socket.sendmsg)
        socket.socket.sendto = failing(socket.socket.sendto)
        threading.Thread(target=tell_tasks, daemon=True).start()

forks = 0
os.register_at_fork(after_in_child=forked)
"""


class Faults:
    """The switches."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def clock_off_by(self, seconds: float) -> Iterator[None]:
        with self._order("clock", str(seconds)):
            yield

    @contextmanager
    def sends_fail(self, number: int) -> Iterator[None]:
        assert errno.errorcode[number]
        with self._order("send", str(number)):
            yield

    @property
    def failed_sends(self) -> int:
        """UDP sends that have failed by order."""
        path = self._directory / "failed"
        return path.stat().st_size if path.exists() else 0

    @contextmanager
    def _order(self, name: str, value: str) -> Iterator[None]:
        new = self._directory / f"{name}.new"
        new.write_text(value)
        new.rename(self._directory / name)
        try:
            yield
        finally:
            (self._directory / name).unlink()

    def tasks(self, pid: int) -> int:
        path = self._directory / f"tasks-{pid}"
        return int(path.read_text()) if path.exists() else -1


@contextmanager
def faults(directory: Path) -> Iterator[Faults]:
    """Edges that are started meanwhile obey the switches."""
    place = directory / "faults"
    place.mkdir()
    (place / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    with pytest.MonkeyPatch.context() as patch:
        old = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(place), *([old] if old else [])]))
        yield Faults(place)


def descriptors(pid: int) -> int:
    """Open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def origin_connections(running: RunningEdge) -> int:
    """Connections to origins that a worker keeps alive."""
    (worker,) = running.admin("/api/v1/status")["workers"]
    upstreams = worker["stats"]["servers"].values()
    return sum(values["open"] for servers in upstreams for values in servers.values())


def holdings(running: RunningEdge, switches: Faults) -> dict[str, int]:
    """What a worker holds that must go back to what it was."""
    (worker,) = running.admin("/api/v1/status")["workers"]
    stats = worker["stats"]
    return {
        "descriptors": descriptors(worker["pid"]),
        "tasks": switches.tasks(worker["pid"]),
        "connections": stats["connections"],
        "half_open": stats["handshakes_open"],
        "requests": stats["requests_active"],
    }
