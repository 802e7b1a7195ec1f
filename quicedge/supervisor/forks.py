"""The supervisor's end of the fork server (`worker.fork_server`)."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence

import structlog

from quicedge.config.limits import FORK_DESCRIPTORS, FORK_MESSAGE_MAX, ORPHAN_POLL
from quicedge.supervisor.spawning import FreshInterpreters, Process
from quicedge.worker.fork_server import (
    Attach,
    Ended,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    encoder,
    reports,
    run_fork_server,
)
from quicedge.worker.memory import trim

log = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36

can_fork = sys.platform == "linux"
"""Elsewhere workers are fresh interpreters: system libraries of macOS abort in a forked process
that has not called exec, and /proc and prctl are Linux's."""


class ForkedProcess:
    """A worker process that the fork server has started."""

    def __init__(self, pid: int, server: ForkServer) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server = server

    def kill(self) -> None:
        if not self.code.done():
            self._server.kill(self.pid)

    async def wait(self) -> int:
        return await asyncio.shield(self.code)


class ForkServer:
    """Spawns workers by having the fork server fork them.

    The constructor forks it, and must run before this process has an event loop, threads, or
    anything open that workers must not share. Should the fork server die, its workers become
    children of this process and go on; later ones are fresh interpreters.
    """

    def __init__(self) -> None:
        import quicedge.worker.main  # noqa: F401  once for all processes

        gc.collect()
        trim()
        gc.freeze()  # a collection would write to every object, and so copy its page
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            run_fork_server(theirs)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._reading = False
        self._lost = False
        self._requests: deque[asyncio.Future[ForkedProcess]] = deque()
        """Not answered yet."""
        self._processes: dict[int, ForkedProcess] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._fallback = FreshInterpreters()

    async def spawn(self, entry: str, control_fd: int, inherited_fds: Sequence[int]) -> Process:
        if self._lost:
            return await self._fallback.spawn(entry, control_fd, inherited_fds)
        loop = asyncio.get_running_loop()
        if not self._reading:
            self._reading = True
            loop.add_reader(self._socket, self._readable)
        fds = [control_fd, *inherited_fds]
        for start in range(0, len(fds), FORK_DESCRIPTORS):
            numbers = fds[start : start + FORK_DESCRIPTORS]
            attach = encoder.encode(Attach(numbers, first=start == 0))
            socket.send_fds(self._socket, [attach], numbers)
        self._socket.send(encoder.encode(Fork(control_fd, entry)))
        request = loop.create_future()
        self._requests.append(request)
        return await request

    def kill(self, pid: int) -> None:
        """Kill a worker that has not been reported to have ended."""
        try:
            self._socket.send(encoder.encode(Kill(pid)))
        except OSError:  # the fork server is gone or hangs
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the fork server. Called when there is no worker and no event loop any more."""
        self._socket.close()
        if not self._lost:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(FORK_MESSAGE_MAX)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._on_lost()
            return
        report = reports.decode(data)
        match report:
            case Forked():
                process = self._processes[report.pid] = ForkedProcess(report.pid, self)
                self._settle(process)
            case ForkFailed():
                self._settle(OSError(report.reason))
            case Ended():
                self._ended(report.pid, report.code)

    def _settle(self, result: ForkedProcess | OSError) -> None:
        request = self._requests.popleft()
        if request.done():
            return  # cancelled: the worker finds its control socket closed, and ends
        if isinstance(result, OSError):
            request.set_exception(result)
        else:
            request.set_result(result)

    def _ended(self, pid: int, code: int) -> None:
        process = self._processes.pop(pid, None)
        if process is not None:
            process.code.set_result(code)

    def _on_lost(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._lost = True
        _, status = os.waitpid(self.pid, 0)
        log.error(
            "fork server died; workers start as fresh interpreters",
            pid=self.pid,
            code=os.waitstatus_to_exitcode(status),
        )
        while self._requests:
            self._settle(OSError("the fork server died"))
        for pid in list(self._processes):
            watch = loop.create_task(self._watch_orphan(pid))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)

    async def _watch_orphan(self, pid: int) -> None:
        """Wait for the end of a worker that has become our child."""
        try:
            while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:  # noqa: ASYNC222  does not wait
                await asyncio.sleep(ORPHAN_POLL)
            code = os.waitstatus_to_exitcode(found[1])
        except ChildProcessError:
            # The fork server reaped it, and died before it could tell.
            code = -signal.SIGKILL
        self._ended(pid, code)
