"""The fork server: a process with one thread that forks workers on request.

Everything that a worker runs is imported in it, and nothing else has begun: no event loop, thread,
log, socket or secret. Workers share the memory of that state. A supervisor that forked them itself
would hand down whatever locks its threads held at that moment.

It is forked from the supervisor at its start (`supervisor.forks`), or a fresh interpreter:
`python -m quicedge.worker.fork_server SOCKET`.

Requests and reports are messages of a unix socket (SOCK_SEQPACKET). A worker's descriptors come
with the request and keep their numbers, as across an exec.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from quicedge.config.limits import FORK_DESCRIPTORS, FORK_MESSAGE_MAX
from quicedge.worker.memory import trim
from quicedge.worker.process import DEFAULT_ENTRY, ignore_signals, run_worker

_PR_SET_NAME = 15

_LATE_IMPORTS = ("concurrent.futures.thread", "encodings.idna")
"""What event loops import when they first look up a name. In a worker, an import costs more memory
than the module: it writes to pages of many others that workers would share."""


class Attach(msgspec.Struct, tag="attach", array_like=True):
    """The descriptors that come with this message belong to the next worker."""

    numbers: list[int]
    """Their numbers in the worker."""
    first: bool
    """Whatever was attached before belongs to a request that was not completed."""


class Fork(msgspec.Struct, tag="fork", array_like=True):
    """Start a worker; answered by `Forked` or `ForkFailed`, in the order of the requests."""

    control_fd: int
    entry: str


class Kill(msgspec.Struct, tag="kill", array_like=True):
    """Kill a worker. Only its parent knows that the number is still that of the worker."""

    pid: int


class Forked(msgspec.Struct, tag="forked", array_like=True):
    pid: int


class ForkFailed(msgspec.Struct, tag="failed", array_like=True):
    reason: str


class Ended(msgspec.Struct, tag="ended", array_like=True):
    """A worker ended."""

    pid: int
    code: int
    """Exit code, negative for a signal."""


encoder = msgspec.msgpack.Encoder()
requests: msgspec.msgpack.Decoder[Attach | Fork | Kill] = msgspec.msgpack.Decoder(
    Attach | Fork | Kill
)
reports: msgspec.msgpack.Decoder[Forked | ForkFailed | Ended] = msgspec.msgpack.Decoder(
    Forked | ForkFailed | Ended
)


def prepare() -> None:
    """Import and initialise what workers run, in memory that they will share."""
    from quicedge.worker.rehearsal import rehearse

    for name in (DEFAULT_ENTRY.partition(":")[0], *_LATE_IMPORTS):
        importlib.import_module(name)
    rehearse()
    gc.collect()
    trim()
    gc.freeze()  # a collection would write to every object, and so copy its page


def run_fork_server(control: socket.socket) -> NoReturn:
    """Serve in a process that was forked for it, until the supervisor closes the socket."""
    code = 1
    try:
        ignore_signals()
        os.setpgid(0, 0)  # Ctrl-C in a terminal is for the supervisor alone
        os.environ.pop("NOTIFY_SOCKET", None)  # only the supervisor notifies systemd
        _set_name("quicedge:forks")
        _close_others(control.fileno())
        _ForkServer(control).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code)


class _ForkServer:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._attached: dict[int, int] = {}
        """Descriptors of the next worker: number there -> number here."""
        self._workers: set[int] = set()
        """Process IDs; none of them can belong to another process before it is reaped."""
        self._wakeup, self._waker = socket.socketpair()

    def run(self) -> None:
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wakeup, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._wakeup.fileno() in ready:
                self._wakeup.recv(4096)
                self._reap()
            if self._control.fileno() in ready and not self._serve():
                return

    def _serve(self) -> bool:
        """Handle one request; False when the supervisor is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, FORK_MESSAGE_MAX, FORK_DESCRIPTORS)
        except ConnectionError:
            return False
        if not data:
            return False
        request = requests.decode(data)
        match request:
            case Attach():
                if request.first:
                    self._close_attached()
                self._attached.update(zip(request.numbers, fds, strict=True))
            case Fork():
                self._fork(request)
            case Kill():
                if request.pid in self._workers:
                    os.kill(request.pid, signal.SIGKILL)
        return True

    def _fork(self, request: Fork) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._report(ForkFailed(str(error)))
        else:
            if pid == 0:
                self._become_worker(request)
            self._workers.add(pid)
            self._report(Forked(pid))
        self._close_attached()

    def _close_attached(self) -> None:
        for fd in self._attached.values():
            os.close(fd)
        self._attached.clear()

    def _become_worker(self, request: Fork) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            _set_name("quicedge:worker")
            for sock in (self._control, self._wakeup, self._waker):
                sock.close()
            _renumber(self._attached)
            code = run_worker(request.control_fd, request.entry)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            _exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._workers.discard(pid)
            self._report(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _report(self, report: Forked | ForkFailed | Ended) -> None:
        try:
            self._control.sendall(encoder.encode(report))
        except OSError:
            pass  # the supervisor is gone, as the next read will tell


def _renumber(wanted: Mapping[int, int]) -> None:
    """Give each descriptor the number that it is wanted as; closes the old ones."""
    above = max(wanted, default=0) + 1
    # First out of the way of all: one's old number may be another's new one.
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for number, fd in wanted.items()}
    for fd in wanted.values():
        os.close(fd)
    for number, fd in moved.items():
        os.dup2(fd, number, inheritable=False)
        os.close(fd)


def _close_others(kept: int) -> None:
    """Close what is open besides standard streams and `kept`; standard input reads nothing."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for name in os.listdir("/proc/self/fd"):
        if (fd := int(name)) > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing itself


def _set_name(name: str) -> None:
    """Set what ps and top show; the arguments stay the supervisor's."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _exit(code: int) -> NoReturn:
    """End without the cleanup of the process that this one was forked from."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)


if __name__ == "__main__":
    prepare()
    run_fork_server(socket.socket(fileno=int(sys.argv[1])))
