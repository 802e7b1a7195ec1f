"""The contract between an exchange and an origin.

The exchange opens an `OriginStream` with a request head and pushes the request body into it; the
stream pushes the response into a `ResponseHandler`. All calls happen on the event loop, and none of
them blocks or awaits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quicedge.config.limits import RETRY_AFTER
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, HttpVersion, Response


class UpstreamError(Exception):
    """The origin failed to answer; `detail` describes the failure for logs.

    `retry_after`: the seconds after which the client should try again; by default RETRY_AFTER if
    the origin has too much to do.
    """

    def __init__(
        self, kind: OriginFailure, detail: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail
        if retry_after is None and kind is OriginFailure.OVERLOADED:
            retry_after = RETRY_AFTER
        self.retry_after = retry_after


class ResponseHandler(Protocol):
    """Receives the response of an origin.

    Called in this order: `informational` any number of times, `response`, `data`, then `end`; or
    `whole` in place of the last three. `failed` may replace the rest at any point; exactly one of
    `end`, `whole` and `failed` is called, last.
    Nothing is called from within `Upstream.open` or an `OriginStream` method.
    """

    def informational(self, response: Response) -> None:
        """An interim response (100, 103, ...)."""

    def response(self, response: Response) -> None:
        """The final response head."""

    def data(self, data: bytes) -> None:
        """Response body bytes."""

    def end(self, trailers: Sequence[Field]) -> None:
        """The response is complete."""

    def whole(self, response: Response, data: bytes) -> None:
        """A complete response without trailers, all of which has arrived at once."""

    def failed(self, error: UpstreamError) -> None:
        """The origin failed, before or after the response head."""

    def pause_request(self) -> None:
        """The origin does not keep up: bytes written from now on must not be credited."""

    def resume_request(self) -> None:
        """The origin accepts request bytes again."""


def in_pieces(handler: ResponseHandler, response: Response, data: bytes) -> None:
    """Pass a whole response to a handler that takes them in pieces."""
    handler.response(response)
    if data:
        handler.data(data)
    handler.end(())


class TunnelHandler(ResponseHandler, Protocol):
    """The handler of a request for a tunnel (`Request.protocol`).

    If the origin opens it, `established` replaces `response`. `end` then means that the origin's
    half has ended; the client's goes on until `OriginStream.end`, and may still fail.
    """

    def established(self, response: Response) -> None:
        """The origin has opened the tunnel; the status is 200."""


class OriginStream(Protocol):
    """One request to an origin: `write` any number of times, then `end` once; or `abort`."""

    stalled: bool
    """Set by the exchange while its client makes no progress; the resources of the request may then
    be given to others that wait."""

    @property
    def server(self) -> str:
        """The chosen server, as `host:port` or `unix:/path`; empty until one is chosen."""

    @property
    def queue_seconds(self) -> float:
        """Time spent waiting for a connection slot."""

    @property
    def connect_seconds(self) -> float:
        """Time spent connecting (TCP and TLS); 0.0 on a reused connection."""

    @property
    def http_version(self) -> HttpVersion | None:
        """None until there is a connection, and for files."""

    @property
    def scheme(self) -> str:
        """`http` or `https`, empty until a server is chosen; `file` for files."""

    @property
    def retries(self) -> int:
        """Attempts after the first."""

    def write(self, data: bytes) -> None:
        """Send request body bytes; never blocks (backpressure: `ResponseHandler.pause_request`)."""

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """The request body is complete."""

    def abort(self) -> None:
        """The client is gone: close the HTTP/1.1 connection or reset the HTTP/2 stream.

        No handler method is called afterwards.
        """

    def pause(self) -> None:
        """Stop reading the response: the client does not keep up."""

    def resume(self) -> None:
        """Read the response again."""
