"""HTTP/1.1 to an origin (RFC 9112): one request at a time, no pipelining, no task.

A message is framed from bytes in hand, never from a length somebody declared, and a connection
whose last exchange did not end cleanly is closed: nothing can be smuggled into the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import httptools

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.checks import MessageError, check_response_fields
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.http.semantics import is_idempotent, response_has_body
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Receiver
from quicedge.upstream.deadline import Deadline

_METHODS_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


class H1Connection(asyncio.Protocol):
    """See the module. It is its own `Attempt` while a request runs.

    `on_idle` is called when it can take another request, `on_closed` when it is gone.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        loop: asyncio.AbstractEventLoop,
        on_idle: Callable[[H1Connection], None],
        on_closed: Callable[[H1Connection], None],
    ) -> None:
        self._config = config
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._deadline = Deadline(loop, self._timed_out)
        self._continue_deadline = Deadline(loop, self._release_body)
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._requests = 0
        self._parser: httptools.HttpResponseParser
        self._request: Request
        self._reset_message()

    def _reset_message(self) -> None:
        self._fields: Fields = []
        self._head_size = 0
        self._head_done = False  # of the final response
        self._message_done = False
        self._got_bytes = False
        self._until_close = False
        self._paused = False
        self._request_done = False
        self._left: int | None = None  # request body bytes still to come; None: chunked
        self._held: list[bytes] | None = None  # body behind Expect: 100-continue
        self._held_end = False
        self._refused = False  # the origin answered without reading the body

    @property
    def is_usable(self) -> bool:
        return (
            self._receiver is None
            and self._transport is not None
            and not self._transport.is_closing()
        )

    # --- sending ------------------------------------------------------------------------------

    def start(self, request: Request, receiver: Receiver) -> H1Connection:
        """Send a request head; the body follows by `write` and `end`."""
        assert self._transport is not None
        self._reset_message()
        self._request = request
        self._receiver = receiver
        self._requests += 1
        self._parser = httptools.HttpResponseParser(self)
        lines = [request.method, b" ", request.path, b" HTTP/1.1\r\nhost: ", request.authority]
        expects = False
        for name, value in request.fields:
            lines += (b"\r\n", name, b": ", value)
            expects |= name == b"expect" and value.lower() == b"100-continue"
        if request.ended:
            self._request_done = True
            if request.method in _METHODS_WITH_BODY:
                lines.append(b"\r\ncontent-length: 0")
        elif request.content_length is not None:
            self._left = request.content_length
            lines.append(b"\r\ncontent-length: %d" % request.content_length)
        else:
            lines.append(b"\r\ntransfer-encoding: chunked")
        lines.append(b"\r\n\r\n")
        self._transport.write(b"".join(lines))
        if expects and not request.ended:
            # RFC 9110 section 10.1.1: a client SHOULD NOT wait for an indefinite period.
            self._held = []
            self._continue_deadline.set(limits.UPSTREAM_CONTINUE_TIMEOUT)
            receiver.pause_request()
        if self._request_done:
            self._deadline.set(self._config.first_byte_timeout)
        else:
            self._deadline.clear()
        return self

    def write(self, data: bytes) -> None:
        if self._receiver is None or self._transport is None or self._refused or not data:
            return
        if self._held is not None:
            self._held.append(data)
            return
        if self._left is None:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        if len(data) > self._left:
            self._fail(UpstreamError("protocol", "request body beyond content-length"))
            return
        self._left -= len(data)
        self._transport.write(data)

    def end(self, trailers: Sequence[Field]) -> None:
        if self._receiver is None or self._transport is None or self._request_done or self._refused:
            return
        if self._held is not None:
            self._held_end = True
            return
        if self._left:
            # Never leave an origin waiting for the rest of a body: close.
            self._fail(UpstreamError("protocol", "request body short of content-length"))
            return
        self._request_done = True
        if self._left is None:
            lines = [b"0\r\n"]
            for name, value in trailers:
                lines += (name, b": ", value, b"\r\n")
            lines.append(b"\r\n")
            self._transport.write(b"".join(lines))
        self._deadline.set(self._config.first_byte_timeout)

    def _release_body(self) -> None:
        """The origin said 100, answered, or kept silent long enough."""
        self._continue_deadline.clear()
        if self._held is None or self._receiver is None:
            return
        held, self._held = self._held, None
        for data in held:
            self.write(data)
        if self._held_end:
            self.end(())
        if self._receiver is not None:
            self._receiver.resume_request()

    def abort(self) -> None:
        self._receiver = None
        self.close()

    def pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._deadline.clear()
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._deadline.set(self._config.idle_timeout)
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(
            high=limits.UPSTREAM_WRITE_HIGH, low=limits.UPSTREAM_WRITE_LOW
        )

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_request()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_request()

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            # Nothing was asked: an origin that speaks unasked cannot be trusted with an answer.
            self.close()
            return
        self._got_bytes = True
        if self._request_done or self._head_done:
            self._deadline.set(self._config.idle_timeout)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError("protocol", str(error)))
        except MessageError as error:
            self._fail(UpstreamError("protocol", str(error)))
        else:
            if self._message_done:
                self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._deadline.cancel()
        self._continue_deadline.cancel()
        if self._receiver is not None:
            if self._until_close and self._head_done and exc is None:
                receiver, self._receiver = self._receiver, None
                receiver.end_of_response(())
            else:
                self._fail(UpstreamError("reset", str(exc or "closed by the origin")))
        self._on_closed(self)

    # --- httptools callbacks --------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if (
            self._head_size > limits.UPSTREAM_MAX_HEAD
            or len(self._fields) >= limits.UPSTREAM_MAX_FIELDS
        ):
            raise MessageError("the origin's field section is too large")
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        fields, self._fields = self._fields, []
        check_response_fields(fields)
        status = self._parser.get_status_code()
        receiver = self._receiver
        if receiver is None:
            return
        if status < 200:
            if status == 101:
                raise MessageError("the origin switched protocols unasked")
            if status == 100:
                self._release_body()
            else:
                receiver.informational(Response(status, fields))
            return
        self._head_done = True
        lengths = {value for name, value in fields if name == b"content-length"}
        coded = any(name == b"transfer-encoding" for name, value in fields)
        if len(lengths) > 1 or (lengths and coded):
            # RFC 9112 section 6.3: such a message may be an attempt at response splitting.
            raise MessageError("the origin's message has two framings")
        has_body = response_has_body(self._request.method, status)
        self._until_close = has_body and not lengths and not coded
        if not has_body:
            # The parser does not know the method, so a HEAD response is over here for us.
            self._message_done = True
        if self._held is not None:
            # A final answer instead of 100: the body is not wanted (RFC 9110 section 10.1.1).
            self._held = None
            self._refused = True
            receiver.resume_request()
        receiver.response(Response(status, fields))

    def on_body(self, body: bytes) -> None:
        if self._message_done:
            raise MessageError("the origin sent content where there is none")
        if self._receiver is not None:
            self._receiver.data(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._message_done = True

    # --- ends -----------------------------------------------------------------------------------

    def _complete(self) -> None:
        """The response is whole; keep the connection if the request is, too."""
        receiver, self._receiver = self._receiver, None
        trailers, self._fields = self._fields, []
        self._deadline.clear()
        self._continue_deadline.clear()
        if self._paused:
            self.resume()
        keep = self._request_done and self._parser.should_keep_alive()
        if keep and self._transport is not None and not self._transport.is_closing():
            self._deadline.set(self._config.keepalive_timeout)
            self._on_idle(self)
        else:
            self._shut()
        if receiver is not None:
            receiver.end_of_response(trailers)

    def _shut(self) -> None:
        """Close without a reset, so that what the origin still reads is not lost."""
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        # An idle connection may have been closed before the request reached it, or just after;
        # RFC 9110 section 9.2.2 lets only idempotent requests be repeated on that guess.
        stale = self._requests > 1 and not self._got_bytes and error.kind == "reset"
        self.close()
        if receiver is not None:
            receiver.attempt_failed(error, stale and is_idempotent(self._request.method))

    def _timed_out(self) -> None:
        if self._receiver is None:
            self._shut()
        elif self._head_done:
            self._fail(UpstreamError("idle_timeout"))
        else:
            self._fail(UpstreamError("first_byte_timeout"))
