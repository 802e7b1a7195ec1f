"""Spawning workers by having a fork server (`worker.fork_server`) fork them.

The first fork server is forked from the supervisor itself, so that the first workers share memory
with it; it exits when they are ready, and the supervisor becomes their parent. Later ones are fresh
interpreters, as the supervisor is no longer fit to be forked, and serve until all workers are ready
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from quicedge.config.limits import FORK_DESCRIPTORS, FORK_MESSAGE_MAX
from quicedge.supervisor.spawning import Process, worker_environment
from quicedge.worker.fork_server import (
    Attach,
    Ended,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    encoder,
    prepare,
    reports,
    run_fork_server,
)

log = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36


def can_fork() -> bool:
    """Whether workers can be forked here.

    Elsewhere they are fresh interpreters: system libraries of macOS abort in a forked process that
    has not called exec, and the rest (prctl, pidfd of Linux 5.3, /proc) is Linux's.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


class ForkedProcess:
    """A worker process that a fork server has started."""

    def __init__(self, pid: int, server: _Server) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server = server

    def kill(self) -> None:
        if not self.code.done():
            self._server.kill(self.pid)

    async def wait(self) -> int:
        return await asyncio.shield(self.code)


class _Server:
    """The supervisor's end of one fork server.

    Reports of the server settle `spawn` and the ends of its workers. When it is gone, retired or
    dead, the ends of its workers are those of children of this process.
    """

    def __init__(self, pid: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.pid = pid
        self.is_gone = False
        self._socket = sock
        self._is_retired = False
        self._reading = False
        self._requests: deque[asyncio.Future[ForkedProcess]] = deque()
        """Not answered yet."""
        self._processes: dict[int, ForkedProcess] = {}

    async def spawn(self, entry: str, control_fd: int, inherited_fds: Sequence[int]) -> Process:
        self._listen()
        fds = [control_fd, *inherited_fds]
        for start in range(0, len(fds), FORK_DESCRIPTORS):
            numbers = fds[start : start + FORK_DESCRIPTORS]
            attach = encoder.encode(Attach(numbers, first=start == 0))
            socket.send_fds(self._socket, [attach], numbers)
        self._socket.send(encoder.encode(Fork(control_fd, entry)))
        request = asyncio.get_running_loop().create_future()
        self._requests.append(request)
        return await request

    def _listen(self) -> None:
        if not self._reading:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._socket, self._readable)

    @property
    def is_idle(self) -> bool:
        """Whether no request is unanswered."""
        return not self._requests

    def retire(self) -> None:
        """Have it exit, once it has reported everything."""
        self._is_retired = True
        # Its exit is to be collected, though it may never have forked.
        self._listen()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self, pid: int) -> None:
        """Kill a worker whose end is not known."""
        try:
            self._socket.send(encoder.encode(Kill(pid)))
        except OSError:
            # Without the server nobody but this process collects its workers.
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End it at once; there is no worker and no event loop any more."""
        self._socket.close()
        if not self.is_gone:
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
            asyncio.get_running_loop().remove_reader(self._socket)
            self.is_gone = True
            # Its workers are ours when it has exited, which it is about to.
            _on_exit(self.pid, self._exited)
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

    def _exited(self, pid: int, code: int) -> None:
        self._socket.close()
        if not self._is_retired:
            log.error("fork server died", pid=pid, code=code)
        while self._requests:
            self._settle(OSError("the fork server died"))
        for worker in list(self._processes):
            _on_exit(worker, self._ended)


class Forking:
    """A `Spawner` on fork servers.

    The constructor forks the first one, and must run before this process has an event loop,
    threads, or anything open that workers must not share.
    """

    def __init__(self) -> None:
        prepare()
        # The parent of workers whose fork server has exited.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            run_fork_server(theirs)
        theirs.close()
        self._server: _Server | None = _Server(pid, ours)

    async def spawn(self, entry: str, control_fd: int, inherited_fds: Sequence[int]) -> Process:
        if self._server is None or self._server.is_gone:
            self._server = _fresh_server()
        return await self._server.spawn(entry, control_fd, inherited_fds)

    def rest(self) -> None:
        if self._server is not None and self._server.is_idle:
            self._server.retire()
            self._server = None

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


def _fresh_server() -> _Server:
    """Start a fork server as a fresh interpreter; raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        theirs.set_inheritable(True)
        pid = os.posix_spawn(
            sys.executable,
            # -P: do not import from the current directory
            [sys.executable, "-P", "-m", "quicedge.worker.fork_server", str(theirs.fileno())],
            worker_environment(),
            setpgroup=0,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return _Server(pid, ours)


def _on_exit(pid: int, exited: Callable[[int, int], None]) -> None:
    """Call `exited(pid, code)` once a child, present or soon to be, has exited."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        exited(pid, _collect(pid))
        return

    def readable() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        exited(pid, _collect(pid))

    loop.add_reader(fd, readable)


def _collect(pid: int) -> int:
    """The exit code of a child that has exited."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # The fork server collected it, and died before it could tell.
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status)
