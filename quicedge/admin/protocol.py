"""HTTP/1.1 as uvicorn speaks it, with the limits it lacks.

Whoever reaches the admin port reaches this before any token is looked at: how large a request may
be, how long it may take, how many connections may wait, and how long a client may leave its
response unread are bounded here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quicedge.config.limits import (
    ADMIN_MAX_CONCURRENCY,
    ADMIN_MAX_REQUEST,
    ADMIN_REQUEST_TIMEOUT,
    ADMIN_SEND_TIMEOUT,
)


class AdminProtocol(HttpToolsProtocol):
    """One connection to the admin API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = 0
        """Bytes of the request that is being read."""
        self._waits_since = self.loop.time()
        """When it was opened, or had answered its last request."""
        self._request_deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) >= ADMIN_MAX_CONCURRENCY:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for a request."""
        waiting = [
            other
            for other in self.connections
            if isinstance(other, AdminProtocol) and other is not self and not other.is_busy
        ]
        if waiting:
            min(waiting, key=lambda other: other._waits_since)._abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > ADMIN_MAX_REQUEST:
            self._abort()
            return
        if self._request_deadline is None:
            self._await_request()
        super().data_received(data)

    def on_message_complete(self) -> None:
        self._received = 0
        self._request_came()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._send_deadline is None:
            self._send_deadline = self.loop.call_later(ADMIN_SEND_TIMEOUT, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_came()
        self._sent()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._request_deadline = self.loop.call_later(ADMIN_REQUEST_TIMEOUT, self._abort)

    def _request_came(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    def _sent(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _abort(self) -> None:
        self.connections.discard(self)
        self.transport.abort()
