"""Reads one UDP socket on the event loop: when datagrams arrive, or by a timer while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quicedge.config.limits import UDP_READS_PER_WAKEUP
from quicedge.udp.moderation import Moderation
from quicedge.udp.socket import Handler, UdpSocket


class SocketReader:
    """Passes what arrives to `handler`, then calls `on_read`; until `close`."""

    def __init__(
        self,
        sock: UdpSocket,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        handler: Handler,
        on_read: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._clock = clock
        self._handler = handler
        self._on_read = on_read
        self._moderation = Moderation(sock.receive_buffer)
        self._unfinished = False
        """Whether datagrams were read that wait for the next event loop iteration."""
        self._timer: asyncio.TimerHandle | None = None
        """The next read; None while the loop watches the socket."""
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())

    def _readable(self) -> None:
        pause = self._read()
        if pause:
            self._loop.remove_reader(self._socket.fileno())
            self._timer = self._loop.call_later(pause, self._read_unwatched)

    def _read_unwatched(self) -> None:
        pause = self._read()
        if pause:
            self._timer = self._loop.call_later(pause, self._read_unwatched)
        else:
            self._timer = None
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _read_on(self) -> None:
        self._unfinished = False
        self._read()

    def _read(self) -> float:
        """Receive what has arrived; returns the seconds to wait before the next read."""
        sock = self._socket
        datagrams = sock.receive(self._handler, self._clock)
        if not datagrams:
            return 0.0  # the loop tells when there is something
        if sock.is_waiting and not self._unfinished:
            self._unfinished = True
            self._loop.call_soon(self._read_on)
        self._on_read()
        pause = self._moderation.pause(sock.counters["bytes_received"], self._clock())
        # More may be there already.
        return pause if datagrams < UDP_READS_PER_WAKEUP else 0.0
