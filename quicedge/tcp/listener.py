"""Accepting connections on one listening socket."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import structlog

from quicedge.config.host_port import HostPort
from quicedge.config.limits import (
    REFUSAL_LOG_INTERVAL,
    TCP_ACCEPT_PAUSE,
    TCP_ACCEPTS_PER_WAKEUP,
    TCP_BACKLOG,
)
from quicedge.shares.prefixes import Networks
from quicedge.tcp.sockets import stop_listening
from quicedge.tcp.tls import ServerContexts
from quicedge.telemetry.bounded_log import BoundedLog

log = structlog.get_logger("quicedge.tcp")

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) after which the connection still waits: the socket stays readable."""

Accepted = Callable[[socket.socket, Any, "Listener"], None]
"""Takes an accepted socket and the client's address."""


class Listener:
    """One listening socket of a worker, on the running loop.

    The supervisor owns the socket: `close` only stops reading it, `stop` refuses new clients.
    """

    def __init__(
        self,
        sock: socket.socket,
        contexts: ServerContexts | None,
        loop: asyncio.AbstractEventLoop,
        accepted: Accepted,
        clock: Callable[[], float],
    ) -> None:
        self.sock = sock
        self.address = HostPort.of(sock.getsockname())
        self.name = str(self.address)
        self.contexts = contexts
        """TLS of new connections; may be replaced at any time. None: no TLS."""
        self.proxies: Networks | None = None
        """Who begins connections with a PROXY header, and alone may connect; may be replaced at any
        time. None: nobody does."""
        self.accept_failures = 0
        """How often accepting was suspended for want of descriptors or memory."""
        self._loop = loop
        self._accepted = accepted
        self._clock = clock
        self._resume: asyncio.TimerHandle | None = None
        self._listening = True
        self._suspensions: BoundedLog[str] = BoundedLog(_log_suspended, REFUSAL_LOG_INTERVAL)
        # A worker that drained before has taken it out of service.
        sock.listen(TCP_BACKLOG)
        loop.add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        """Hand over what has been accepted by the kernel, then refuse new clients."""
        if not self._listening:
            return
        self._listening = False
        self._detach()
        for _ in range(TCP_BACKLOG):
            if not self._accept():
                break
        stop_listening(self.sock)

    def close(self) -> None:
        """Stop reading; clients wait for another worker."""
        if self._listening:
            self._listening = False
            self._detach()

    def _detach(self) -> None:
        self._loop.remove_reader(self.sock.fileno())
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _readable(self) -> None:
        for _ in range(TCP_ACCEPTS_PER_WAKEUP):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one connection; whether there may be more."""
        try:
            sock, address = self.sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._suspend(error)
                return False
            # The client was gone before we came to it (accept(2) reports its errors).
            return error.errno != errno.EINVAL
        self._accepted(sock, address, self)
        return True

    def _suspend(self, error: OSError) -> None:
        """The process or the machine has no descriptor or memory left: wait until some are free."""
        self.accept_failures += 1
        self._suspensions.note(error.strerror or str(error), self._clock())
        if self._listening and self._resume is None:
            self._loop.remove_reader(self.sock.fileno())
            self._resume = self._loop.call_later(TCP_ACCEPT_PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._resume = None
        self._loop.add_reader(self.sock.fileno(), self._readable)


def _log_suspended(reason: str, count: int) -> None:
    log.error("cannot accept TCP connections", reason=reason, count=count)
