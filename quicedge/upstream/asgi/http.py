"""An HTTP request to an application."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quicedge.config.limits import UPSTREAM_INTERIM_BURST
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Fields, Response
from quicedge.http.semantics import response_has_body
from quicedge.http.validation import (
    MessageError,
    MessageLimits,
    validate_response_fields,
    validate_trailers,
)
from quicedge.upstream.asgi.application import Message, Scope
from quicedge.upstream.asgi.scope import http_scope
from quicedge.upstream.asgi.stream import AppStream, Call
from quicedge.upstream.base import ResponseHandler
from quicedge.upstream.deadline import Deadline


class HttpStream(AppStream):
    """One call of an application with an `http` scope."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._body: list[bytes] = []
        """Request content that the application has not received."""
        self._request_ended = self.request.ended
        self._end_received = False
        """The application has received the end of the request."""
        self._awaits_continue = any(name == b"expect" for name, _ in self.request.fields)
        self._status = 0
        """Of the response; 0 before `http.response.start`."""
        self._content_left: int | None = None
        """Response content that the application has declared and not sent."""
        self._has_trailers = False
        self._content_ended = False
        self._is_complete = False
        self._trailers: Fields = []
        self._interim_left = UPSTREAM_INTERIM_BURST
        self._deadline = Deadline(self.upstream.loop, self._waited_too_long)

    # --- OriginStream -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.handler is not None and data:
            self._body.append(data)
            self.hold(len(data))
            self.wake()

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """The request is complete; ASGI has no message for its trailers."""
        self._request_ended = True
        self._wait_for_response()
        self.wake()

    def _wait_for_response(self) -> None:
        if not self._status and self.handler is not None:
            self._deadline.set(self.upstream.config.first_byte_timeout)

    def _waited_too_long(self) -> None:
        self.fail(OriginFailure.FIRST_BYTE_TIMEOUT, "the application has not begun to respond")

    def finish(self) -> ResponseHandler | None:
        self._deadline.cancel()
        self._body.clear()
        return super().finish()

    # --- the application --------------------------------------------------------------------------

    def scope(self) -> Scope:
        lifespan, config = self.upstream.lifespan, self.upstream.config
        return http_scope(self.request, self.peer, config.root_path, lifespan.state)

    def called(self) -> None:
        if self._request_ended:
            self._wait_for_response()

    async def receive(self) -> Message:
        if self._awaits_continue and not self._body and not self._request_ended:
            self._awaits_continue = False
            if self.handler is not None and not self._status:
                self.handler.informational(Response(100))
        while not self._body and not (self._request_ended and not self._end_received):
            if self.handler is None:
                return {"type": "http.disconnect"}
            await self.wait_for_input()
        if self.handler is None:
            return {"type": "http.disconnect"}
        body = b"".join(self._body)
        self._body.clear()
        self.release(len(body))
        self._end_received = self._request_ended
        return {"type": "http.request", "body": body, "more_body": not self._request_ended}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._is_complete:
            raise RuntimeError(f"{kind!r} after the response is complete")
        await self.wait_for_client()
        if not self._status:
            if kind == "http.response.start":
                self._start(message)
            elif kind == "http.response.early_hint":
                self._hint(message["links"])
            else:
                raise RuntimeError(f"{kind!r} before http.response.start")
        elif kind == "http.response.body" and not self._content_ended:
            self._send_content(message)
        elif kind == "http.response.trailers" and self._content_ended:
            self._send_trailers(message)
        else:
            raise RuntimeError(f"unexpected {kind!r}")

    def _start(self, message: Message) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"{status!r} is not the status of a final response")
        fields = checked_fields(message.get("headers", ()))
        lengths = {value for name, value in fields if name == b"content-length"}
        if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
            raise ValueError("content-length is not a number")
        if not response_has_body(self.request.method, status):
            self._content_left = 0
        elif lengths:
            self._content_left = int(lengths.pop())
        self._has_trailers = bool(message.get("trailers"))
        self._status = status
        self._deadline.cancel()
        assert self.handler is not None
        self.handler.response(Response(status, fields))

    def _hint(self, links: Iterable[bytes]) -> None:
        if not self._interim_left:
            raise RuntimeError("too many early hints")
        self._interim_left -= 1
        assert self.handler is not None
        fields: Fields = [(b"link", bytes(link)) for link in links]
        validate_response_fields(fields)
        self.handler.informational(Response(103, fields))

    def _send_content(self, message: Message) -> None:
        data = content_of(message, "body")
        more = bool(message.get("more_body", False))
        if not response_has_body(self.request.method, self._status):
            data = b""  # as for HEAD, whatever the application sends
        elif self._content_left is not None:
            self._content_left -= len(data)
            if self._content_left < 0:
                raise RuntimeError("more content than content-length declares")
            if not more and self._content_left:
                raise RuntimeError("less content than content-length declares")
        handler = self.handler
        assert handler is not None
        self.upstream.bytes_received += len(data)
        if more or self._has_trailers:
            self._content_ended = not more
            if data:
                handler.data(data)
            return
        self._content_ended = self._is_complete = True
        self.finish()
        if data:
            handler.data(data)
        handler.end(())

    def _send_trailers(self, message: Message) -> None:
        lines = checked_fields(message.get("headers", ()))
        self._trailers += validate_trailers(lines, MessageLimits())
        if not message.get("more_trailers", False):
            self._is_complete = True
            handler = self.finish()
            if handler is not None:
                handler.end(self._trailers)

    # --- its end ----------------------------------------------------------------------------------

    def returned(self) -> None:
        if not self._status:
            self.fail(OriginFailure.APPLICATION, "the application returned without a response")
        else:
            self.fail(OriginFailure.RESET, "the application returned within the response")

    def crashed(self) -> None:
        kind = OriginFailure.RESET if self._status else OriginFailure.APPLICATION
        self.fail(kind, "the application raised an exception")


def content_of(message: Message, key: str) -> bytes:
    """Content in a message of an application; empty if it has none."""
    data = message.get(key, b"")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{key} must be bytes, not {type(data).__name__}")
    return bytes(data)


def checked_fields(headers: Iterable[Iterable[bytes]]) -> Fields:
    """Field lines of an application, with names in lower case; raises MessageError."""
    fields: Fields = []
    for name, value in headers:
        if not isinstance(name, bytes | bytearray) or not isinstance(value, bytes | bytearray):
            raise MessageError("header names and values must be bytes")
        fields.append((bytes(name).lower(), bytes(value).strip(b" \t")))
    validate_response_fields(fields)
    return fields
