"""What the rest of the package knows of an origin connection, whatever its HTTP version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.retry import Retry


class Attempt(Protocol):
    """A request on a connection: what its body is pushed into. Of no use once it is over."""

    is_duplex: bool
    """Whether the origin may answer first and still want the rest of the body."""

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Receiver(Protocol):
    """Where a connection pushes the response. Nothing is called from within an `Attempt` call."""

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None: ...

    def data(self, data: bytes) -> None: ...

    def end_of_response(self, trailers: Sequence[Field]) -> None: ...

    def attempt_failed(self, error: UpstreamError, retry: Retry) -> None: ...

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


@dataclass(slots=True)
class Counters:
    """Of one server. Bytes are those on the wire, within TLS."""

    requests: int = 0
    failures: int = 0
    retries: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class OriginConnection(Protocol):
    """A connection that requests can be started on. It lives by the loop's callbacks alone."""

    is_shared: bool
    """Whether it takes several requests at a time."""
    connected_at: float
    """time.monotonic() when it was made."""
    connect_seconds: float
    """What it took to make it (TCP and TLS)."""

    @property
    def capacity(self) -> int:
        """Requests that may be started now."""

    @property
    def active(self) -> int:
        """Requests that run."""

    def start(self, request: Request, receiver: Receiver) -> Attempt:
        """Send a request head; needs `capacity`."""

    def is_readable(self) -> bool:
        """Whether an idle connection's socket is readable: the origin closed it, as a rule."""

    def close(self) -> None:
        """Close an idle connection in good order."""

    def terminate(self) -> None:
        """Close at once; what runs fails."""


class Owner(Protocol):
    """Who keeps connections (`server.Server`)."""

    counters: Counters

    def available(self, connection: OriginConnection) -> None:
        """It has capacity again."""

    def retired(self, connection: OriginConnection) -> None:
        """It takes no further requests; those that run go on."""

    def closed(self, connection: OriginConnection) -> None:
        """It is gone."""

    def found_odd(self, what: str) -> None:
        """Its answers are not quite what HTTP asks for, and were mended; `what` is one of few."""
