"""What the pool and a request know of an origin connection, whatever its HTTP version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quicedge.http.message import Field, Request, Response
from quicedge.upstream.base import UpstreamError


class Attempt(Protocol):
    """A request on a connection: what the request body is pushed into."""

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: Sequence[Field]) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Receiver(Protocol):
    """Where a connection pushes the response; as `base.ResponseHandler`, but for `failed`."""

    def informational(self, response: Response) -> None: ...

    def response(self, response: Response) -> None: ...

    def data(self, data: bytes) -> None: ...

    def end_of_response(self, trailers: Sequence[Field]) -> None: ...

    def attempt_failed(self, error: UpstreamError, retryable: bool) -> None:
        """The attempt failed; `retryable`: sending the request again does no harm, because the
        origin did not act on it or because its method says so."""

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


class OriginConnection(Protocol):
    """A connection that requests can be started on."""

    @property
    def is_usable(self) -> bool:
        """Whether `start` may be called now."""

    def start(self, request: Request, receiver: Receiver) -> Attempt:
        """Send a request head."""

    def close(self) -> None:
        """Close at once; what runs fails."""
