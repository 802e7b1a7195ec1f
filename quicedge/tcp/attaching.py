"""Handing accepted sockets over to the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger("quicedge.tcp")


def attach(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    sock: socket.socket,
    failed: Callable[[Exception], None],
) -> None:
    """Make an accepted socket the transport of a protocol; `failed` is called, and the socket
    closed, where the loop cannot take it."""
    _Attaching(loop.connect_accepted_socket(lambda: protocol, sock), sock, failed).step()


class _Attaching:
    """Runs the loop's coroutine. A task would do it two turns of the loop later, and be one more
    object that the loop keeps account of for each connection."""

    __slots__ = ("_coroutine", "_failed", "_sock")

    def __init__(
        self,
        coroutine: Any,
        sock: socket.socket,
        failed: Callable[[Exception], None],
    ) -> None:
        self._coroutine = coroutine
        self._sock = sock
        self._failed = failed

    def step(self, _: object = None) -> None:
        """Run it until the next future that it waits for."""
        try:
            awaited: asyncio.Future[Any] = self._coroutine.send(None)
        except StopIteration:
            return
        except Exception as error:
            log.debug("cannot take over a connection", error=str(error))
            self._sock.close()
            self._failed(error)
            return
        awaited.add_done_callback(self.step)
