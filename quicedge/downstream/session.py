"""What the worker needs of a session, whatever protocol its client speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from quicedge.downstream.progress import Progress
from quicedge.downstream.response_account import ResponseAccount
from quicedge.downstream.stalls import Stalls
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.proxy.client import ClientInfo
from quicedge.proxy.exchange import Exchange


class Stream(Protocol):
    """A request and its response."""

    stream_id: int
    exchange: Exchange | None


class Session(Protocol):
    """One connection of a client. Codes are those of HTTP/3; each session sends the code of its own
    protocol with the same meaning (`http.errors`)."""

    memory: ResponseAccount
    stalls: Stalls
    timeouts: StreamTimeouts
    requests: int
    """Requests received so far."""
    routes: set[str]
    """Routes of its requests, as `HOST` and `PATH` of the configuration."""
    going_away: bool
    """No new requests are accepted; the session ends once the running ones are done."""

    @property
    def client(self) -> ClientInfo: ...

    @property
    def streams(self) -> Mapping[int, Stream]:
        """Requests in progress."""

    @property
    def progress(self) -> Progress: ...

    @property
    def is_busy(self) -> bool:
        """Whether any deadline on progress is running."""

    @property
    def unread_bytes(self) -> int:
        """Request bytes received that no origin has taken."""

    def check_idle(self, now: float, timeout: float) -> None:
        """Close a connection without requests, unless its transport does so itself."""

    def unfinished_heads(self) -> list[int]:
        """Streams whose request head is incomplete."""

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        """Answer a request whose head was never completed."""

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our half of a stream."""

    def release_reservations(self) -> None:
        """Stop reserving memory for responses that did not start within a second."""

    def reset_stalled(self) -> int:
        """Reset stalled streams until the client holds less than its share of the memory; returns
        their number."""

    def check_held(self, now: float) -> None:
        """Start held requests that no longer have to wait; refuse those that waited too long."""

    def announce_drain(self) -> None:
        """New requests are still served, but should go elsewhere."""

    def drain(self, patience: float = 0.0) -> None:
        """Finish running requests, reject new ones.

        `patience`: seconds in which a client that cannot be reached may still learn of it, where
        the transport tells.
        """

    def close_if_drained(self) -> None:
        """Close the connection if it is going away and no exchange is left."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection now."""
