"""The memory that the responses of one session hold, and how much each may buffer."""

from __future__ import annotations

from quicedge.config.limits import (
    EXCHANGE_MEMORY,
    RESPONSE_MEMORY_GRAIN,
    SEND_BUFFER_CONNECTION,
    SEND_BUFFER_FLOOR,
    SEND_BUFFER_HIGH,
    UNANSWERED_UNCOUNTED,
)
from quicedge.proxy.response_memory import Account, ResponseMemory
from quicedge.shares import Client


class ResponseAccount:
    """A session's `response_memory.Account`, with what its requests may still add to it.

    Each response may add SEND_BUFFER_HIGH at once when it starts. A request is reserved that much
    until its response starts, or for a second; from then on its actual size counts. Call `settle`
    whenever `buffered`, the bytes of unsent and unacknowledged responses, may have changed.
    """

    __slots__ = ("_client", "_pool", "_unanswered", "account")

    def __init__(self, memory: ResponseMemory, client: Client) -> None:
        self.account: Account = memory.account(client)
        self._pool = memory.pool
        self._client = client
        self._unanswered = 0

    @property
    def is_short(self) -> bool:
        """Whether the client has used up its share of the memory, over all its connections."""
        return not self._pool.may_take(self._client)

    def started(self) -> bool:
        """A request was started; whether to settle now, because it counts."""
        self._unanswered += 1
        return self._unanswered > UNANSWERED_UNCOUNTED

    def answered(self) -> None:
        """A response has started."""
        if self._unanswered:
            self._unanswered -= 1

    def abandoned(self) -> bool:
        """A request ended before its response started; whether to settle now, because it may have
        counted."""
        self.answered()
        return self.account.held > 0

    def release_reservations(self) -> None:
        """Reserve nothing more for responses that did not start within a second."""
        self._unanswered = 0

    def settle(self, buffered: int, streams: int) -> None:
        """Account for `buffered` bytes of responses and the exchanges of `streams` requests, to
        within RESPONSE_MEMORY_GRAIN."""
        if self._unanswered > UNANSWERED_UNCOUNTED:
            buffered += (self._unanswered - UNANSWERED_UNCOUNTED) * SEND_BUFFER_HIGH
        nbytes = buffered + EXCHANGE_MEMORY * streams
        change = nbytes - self.account.held
        if not -RESPONSE_MEMORY_GRAIN < change < RESPONSE_MEMORY_GRAIN or (change and not nbytes):
            self.account.settle(nbytes)

    def send_buffer_limit(self, unsent: int) -> int:
        """Unsent bytes per stream above which its origin is paused; `unsent`: of all streams."""
        if unsent > SEND_BUFFER_CONNECTION or self.is_short:
            return SEND_BUFFER_FLOOR
        return SEND_BUFFER_HIGH
