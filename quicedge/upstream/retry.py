"""Retries: when they are safe, and the body that is kept for them."""

from __future__ import annotations

from enum import Enum, auto

from quicedge.config import limits
from quicedge.http.semantics import is_idempotent


class Retry(Enum):
    """Which requests may be retried after a failed attempt."""

    NEVER = auto()
    """The origin may have acted on the request."""
    IDEMPOTENT = auto()
    """A connection that had been idle was closed before any byte of a response: it was probably
    already closing. RFC 9110 section 9.2.2: a proxy MUST NOT automatically retry non-idempotent
    requests."""
    ALWAYS = auto()
    """The origin did not act on the request: there was no connection, or HTTP/2 says so (RFC 9113
    sections 6.8 and 8.7)."""


def may_retry(retry: Retry, method: bytes, body: ReplayBody, tries_left: int) -> bool:
    """Whether to retry a request after a failed attempt."""
    if tries_left <= 0 or not body.is_whole:
        return False
    return retry is Retry.ALWAYS or (retry is Retry.IDEMPOTENT and is_idempotent(method))


class ReplayBody:
    """The request body so far, kept until there is a connection and for retries.

    Without a connection everything is kept (the writer is paused at `limits.UPSTREAM_REPLAY_BODY`);
    with one, only up to that limit.
    """

    __slots__ = ("_data", "is_whole")

    def __init__(self) -> None:
        self._data = bytearray()
        self.is_whole = True
        """False after bytes were sent that are not kept."""

    @property
    def is_full(self) -> bool:
        return len(self._data) >= limits.UPSTREAM_REPLAY_BODY

    def keep(self, data: bytes) -> None:
        """Keep bytes that were not sent yet."""
        self._data += data

    def sent(self, data: bytes) -> None:
        """Keep bytes that were sent immediately, if the limit allows."""
        if self.is_whole:
            if len(self._data) + len(data) > limits.UPSTREAM_REPLAY_BODY:
                self.drop()
            else:
                self._data += data

    def replay(self) -> bytes:
        """The kept bytes, to be sent now."""
        data = bytes(self._data)
        if len(data) > limits.UPSTREAM_REPLAY_BODY:
            self.drop()
        return data

    def drop(self) -> None:
        """Discard the bytes: there will be no retry."""
        self.is_whole = False
        self._data.clear()
