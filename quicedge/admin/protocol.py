"""uvicorn's HTTP/1.1 protocol, with the limits it lacks.

Requests reach this code before any token is checked. It bounds the size and duration of requests,
the number of waiting connections, and how long a client may leave a response unread.
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
        """Bytes of the current request received so far."""
        self._waits_since = self.loop.time()
        """Time of the connection's start or of its last complete response."""
        self._request_deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_request_deadline()
        if len(self.connections) >= ADMIN_MAX_CONCURRENCY:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has been waiting longest for a request."""
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
            self._start_request_deadline()
        super().data_received(data)

    def on_message_complete(self) -> None:
        self._received = 0
        self._cancel_request_deadline()
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
        self._cancel_send_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_request_deadline()
        self._cancel_send_deadline()
        super().connection_lost(exc)

    def _start_request_deadline(self) -> None:
        self._request_deadline = self.loop.call_later(ADMIN_REQUEST_TIMEOUT, self._abort)

    def _cancel_request_deadline(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    def _cancel_send_deadline(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _abort(self) -> None:
        self.connections.discard(self)
        self.transport.abort()
