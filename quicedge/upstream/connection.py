"""The interface of origin connections, independent of the HTTP version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.retry import Retry


class Attempt(Protocol):
    """A request on a connection; its body is pushed into it. Not to be used after the end."""

    is_duplex: bool
    """Whether the origin may respond early and still want the rest of the body."""
    takes_more: bool
    """Whether, in a tunnel, the origin still takes bytes once it has ended its half."""

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Receiver(Protocol):
    """Receives a response from a connection; never called from within an `Attempt` call."""

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None: ...

    def established(self, response: Response, attempt: Attempt) -> None:
        """The origin has opened the requested tunnel, in place of `response`: `attempt` replaces
        the earlier one, and the halves end separately (`end_of_response` is the origin's)."""

    def data(self, data: bytes) -> None: ...

    def end_of_response(self, trailers: Sequence[Field]) -> None: ...

    def whole(self, response: Response, data: bytes) -> None:
        """A complete response to a complete request, in place of `response`, `data` and
        `end_of_response`; the connection may serve another request already."""

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None: ...

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


@dataclass(slots=True)
class Counters:
    """Counters of one server. Bytes are those of HTTP, inside TLS."""

    requests: int = 0
    failures: int = 0
    retries: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class OriginConnection(Protocol):
    """A connection for requests, driven by event loop callbacks only.

    Call `start` only while `capacity` is positive. After `Owner.retired` no request may be started;
    `Owner.closed` is the last callback.
    """

    is_shared: bool
    """Whether it supports several concurrent requests."""
    connected_at: float
    """time.monotonic() when it was established."""
    connect_seconds: float
    """Seconds to establish it (TCP and TLS)."""

    @property
    def capacity(self) -> int:
        """The number of requests that may be started now."""

    @property
    def active(self) -> int:
        """The number of running requests."""

    def start(self, request: Request, receiver: Receiver) -> Attempt:
        """Send a request head; requires `capacity`."""

    def is_readable(self) -> bool:
        """Whether an idle connection's socket is readable: usually because the origin closed it."""

    def close(self) -> None:
        """Close an idle connection gracefully."""

    def terminate(self) -> None:
        """Close immediately; running requests fail."""


class Owner(Protocol):
    """The owner of connections (`server.Server`)."""

    counters: Counters

    def available(self, connection: OriginConnection) -> None:
        """The connection has capacity again."""

    def retired(self, connection: OriginConnection) -> None:
        """The connection accepts no more requests; running ones continue."""

    def closed(self, connection: OriginConnection) -> None:
        """The connection is closed."""

    def limited(self, max_streams: int) -> None:
        """The origin allows this many concurrent requests per connection (HTTP/2 only)."""

    def lacks_tunnels(self) -> None:
        """The server speaks HTTP/2 but does not offer extended CONNECT (RFC 8441)."""

    def repaired_response(self, what: str) -> None:
        """Its responses deviated from HTTP and were repaired; `what` is one of a few constants."""
