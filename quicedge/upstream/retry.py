"""When a request may be sent again, and what is kept so that it can be."""

from __future__ import annotations

from enum import Enum, auto

from quicedge.config import limits
from quicedge.http.semantics import is_idempotent


class Retry(Enum):
    """What a connection knows about a try that failed."""

    NEVER = auto()
    """The origin may have acted on the request."""
    IDEMPOTENT = auto()
    """A connection that had been idle was closed before any byte of a response came: most likely
    it was already closing. RFC 9110 section 9.2.2: a proxy MUST NOT automatically retry
    non-idempotent requests."""
    ALWAYS = auto()
    """The origin did not act on it: no connection was made, or HTTP/2 says so (RFC 9113
    sections 6.8 and 8.7)."""


def may_retry(retry: Retry, method: bytes, body: ReplayBody, tries_left: int) -> bool:
    """Whether a request whose try failed is sent once more."""
    if tries_left <= 0 or not body.is_whole:
        return False
    return retry is Retry.ALWAYS or (retry is Retry.IDEMPOTENT and is_idempotent(method))


class ReplayBody:
    """The request body so far: what waits for a connection, and what a retry would send again.

    Without a connection everything is kept (the writer is told to pause at
    `limits.UPSTREAM_REPLAY_BODY`); with one, only as long as that limit is not passed.
    """

    __slots__ = ("_data", "is_whole")

    def __init__(self) -> None:
        self._data = bytearray()
        self.is_whole = True
        """False once bytes were sent that are not kept."""

    @property
    def is_full(self) -> bool:
        return len(self._data) >= limits.UPSTREAM_REPLAY_BODY

    def keep(self, data: bytes) -> None:
        """Bytes that were not sent yet."""
        self._data += data

    def sent(self, data: bytes) -> None:
        """Bytes that were sent right away."""
        if self.is_whole:
            if len(self._data) + len(data) > limits.UPSTREAM_REPLAY_BODY:
                self.drop()
            else:
                self._data += data

    def replay(self) -> bytes:
        """All that is kept, to be sent now."""
        data = bytes(self._data)
        if len(data) > limits.UPSTREAM_REPLAY_BODY:
            self.drop()
        return data

    def drop(self) -> None:
        """No retry any more."""
        self.is_whole = False
        self._data.clear()
