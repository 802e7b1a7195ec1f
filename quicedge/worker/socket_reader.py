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
        self._is_closed = False
        loop.add_reader(sock.fileno(), self._read)

    def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())

    def _read(self) -> None:
        """Receive what has arrived, and see to the next read."""
        sock = self._socket
        pause = 0.0
        datagrams = sock.receive(self._handler, self._clock)
        if datagrams:
            if sock.undelivered and not self._unfinished:
                self._unfinished = True
                self._loop.call_soon(self._read_on)
            self._on_read()
            pause = self._moderation.pause(sock.counters["bytes_received"], self._clock())
            if datagrams >= UDP_READS_PER_WAKEUP:
                pause = 0.0  # more may be there already
        if pause or self._timer is not None:
            self._schedule_read(pause)

    def _schedule_read(self, pause: float) -> None:
        """Read next in `pause` seconds; 0: when the loop finds the socket readable."""
        is_watched = self._timer is None
        if pause:
            if is_watched:
                self._loop.remove_reader(self._socket.fileno())
            self._timer = self._loop.call_later(pause, self._read)
        elif not is_watched:
            self._timer = None
            self._loop.add_reader(self._socket.fileno(), self._read)

    def _read_on(self) -> None:
        self._unfinished = False
        if self._is_closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._read()
