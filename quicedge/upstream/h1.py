"""HTTP/1.1 to an origin (RFC 9112): one request at a time, no pipelining, no task.

A message is framed by the bytes at hand, never by a declared length, and a connection whose last
exchange did not end cleanly is closed, so nothing can be smuggled into the next one.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
from collections.abc import Sequence
from typing import cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.http.semantics import response_has_body
from quicedge.http.upgrade import encode_key, expects_accept, switched
from quicedge.http.validation import FORBIDDEN_TRAILERS, MessageError, validate_response_fields
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import Owner, Receiver
from quicedge.upstream.deadline import Deadline
from quicedge.upstream.failures import failure_of
from quicedge.upstream.h1_head import HeadFilter, is_plain
from quicedge.upstream.h1_request import encode_head, encode_trailers, encode_upgrade
from quicedge.upstream.h1_tunnel import H1Tunnel
from quicedge.upstream.h1_whole import read_whole
from quicedge.upstream.interim import InterimRate
from quicedge.upstream.retry import Retry

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout=([0-9]{1,6})(?:$|[,;\s])")


class H1Connection(asyncio.Protocol):
    """An HTTP/1.1 `OriginConnection`, and the `Attempt` of its running request.

    Once the origin has switched protocols, the transport belongs to an `H1Tunnel`, and this only
    stands for it in the pool, which never reuses it.
    """

    is_shared = False
    is_duplex = False
    takes_more = False

    def __init__(
        self,
        owner: Owner,
        config: UpstreamConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        connected_at: float = 0.0,
        connect_seconds: float = 0.0,
    ) -> None:
        self.connected_at = connected_at
        self.connect_seconds = connect_seconds
        self._owner = owner
        self._counters = owner.counters
        self._loop = loop
        self._keepalive_timeout = config.keepalive_timeout
        self._idle = Deadline(loop, self.close)
        self._transport: asyncio.Transport
        self._is_open = False
        self._parser: HttpResponseParser | None = None
        self._receiver: Receiver | None = None
        self._requests = 0
        self._out: list[bytes] = []
        self._flush_scheduled = False
        self._write_paused = False
        self._read_paused = False
        # The running request.
        self._method = b""
        self._request_done = False
        self._left: int | None = None  # body bytes still to come; None: chunked
        # Its response.
        self._fields: Fields = []
        self._size = 0  # of the field section being read
        self._unproductive = 0  # bytes since the last parser event
        self._body_left = 0  # bytes of content of known length still to come
        self._heads: HeadFilter | None = None  # of heads that need more than the parser
        self._interim: InterimRate | None = None
        self._answered = False  # any byte was received
        self._flushes = 0
        """Writes of the current request."""
        self._let_speak = False
        """The last flush was put off so that the origin's answer is read first."""
        self._head_done = False  # of the final response
        self._until_close = False
        self._keep_alive = False
        self._keepalive = config.keepalive_timeout  # seconds, after this response
        self._complete = False
        # Of a final response in one read: held until that read is parsed.
        self._held: Response | None = None
        self._held_body = b""
        # A request for a tunnel.
        self._protocol: bytes | None = None
        self._key: bytes | None = None  # generated here, because the client sent none
        self._tunnel: H1Tunnel | None = None

    @property
    def capacity(self) -> int:
        return int(self._is_open and self._receiver is None and not self._transport.is_closing())

    @property
    def active(self) -> int:
        return int(self._receiver is not None)

    def is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # --- the request ----------------------------------------------------------------------------

    def introduce(self, header: bytes) -> None:
        """Send a PROXY header before the first request; call it right before `start`."""
        self._out.append(header)

    def start(self, request: Request, receiver: Receiver) -> H1Connection:
        """Send a request head; `write` and `end` send the body."""
        self._idle.clear()
        self._receiver = receiver
        self._requests += 1
        self._method = request.method
        self._request_done = request.ended
        self._left = request.content_length
        self._fields = []
        self._size = self._unproductive = 0
        self._body_left = 0
        self._interim = self._heads = None
        self._answered = self._head_done = self._until_close = self._complete = False
        self._flushes = 0
        self._let_speak = False
        self._held = None
        if self._parser is None:
            self._parser = HttpResponseParser(self)
        self._protocol = request.protocol
        try:
            self._out.append(
                encode_head(request) if request.protocol is None else self._upgrade(request)
            )
        except ValueError as error:
            self._reject(str(error))
            return self
        if self._request_done:
            self._flush()
        else:
            self._flush_soon()
        return self

    def _upgrade(self, request: Request) -> bytes:
        """The head of a request for a tunnel, which has no content."""
        self._request_done = True
        self._key = None if expects_accept(request) else encode_key(os.urandom(16))
        return encode_upgrade(request, self._key)

    def write(self, data: bytes) -> None:
        if self._receiver is None or self._request_done or not data:
            return
        left = self._left
        if left is None:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        elif len(data) > left:
            self._reject("more body than content-length declares")
            return
        else:
            self._left = left - len(data)
            self._out.append(data)
        self._flush_soon()

    def end(self, trailers: Sequence[Field]) -> None:
        if self._receiver is None or self._request_done:
            return
        if self._left:
            self._reject("less body than content-length declares")
            return
        if self._left is None:
            try:
                self._out.append(encode_trailers(trailers))
            except ValueError as error:
                self._reject(str(error))
                return
        self._request_done = True
        self._flush_soon()

    def _reject(self, reason: str) -> None:
        """Fail a request that cannot be sent, and close the connection.

        The origin must neither wait for the rest of a body nor see a byte that it could take for
        another request.
        """
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            error = UpstreamError(OriginFailure.REQUEST, reason)
            self._loop.call_soon(receiver.attempt_failed, error, Retry.NEVER)

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write everything produced in one event loop iteration at once."""
        self._flush_scheduled = False
        if self._flushes > 1 and not self._answered and self._is_open and self._lets_origin_speak():
            self._flush_soon()
            return
        if self._out and self._is_open and not self._transport.is_closing():
            out = self._out
            size = len(out[0]) if len(out) == 1 else sum(map(len, out))
            self._counters.bytes_sent += size
            if size > limits.UPSTREAM_JOINED:
                self._transport.writelines(out)
            else:
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            self._flushes += 1
        self._out.clear()

    def _lets_origin_speak(self) -> bool:
        """Whether to read before the next part of a body is written.

        An origin that answers early may then reset the connection, and a write that fails takes the
        unread response with it.
        """
        self._let_speak = not self._let_speak and not self._read_paused and self.is_readable()
        return self._let_speak

    def pause(self) -> None:
        if not self._read_paused and self._is_open and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._read_paused and self._is_open and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(
            high=limits.UPSTREAM_WRITE_HIGH, low=limits.UPSTREAM_WRITE_LOW
        )
        self._is_open = True
        self._idle.set(self._keepalive_timeout)
        self._owner.available(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._receiver is not None:
            self._receiver.pause_request()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._receiver is not None:
            self._receiver.resume_request()

    def data_received(self, data: bytes) -> None:
        self._counters.bytes_received += len(data)
        if self._receiver is None:
            # Unsolicited data: the next response on this connection could not be trusted.
            self.abort()
            return
        if not self._answered:
            self._answered = True
            if self._request_done and self._reads_at_a_glance(data):
                return
        if self._body_left:
            self._pass_on(data)
            return
        self._unproductive += len(data)
        try:
            excess = self._feed(data)
        except HttpParserCallbackError as error:
            if self._held is None or self._release():
                self._callback_failed(error.__context__)
            return
        except HttpParserUpgrade:
            self._fail(
                UpstreamError(OriginFailure.PROTOCOL, "the origin switched protocols unasked")
            )
            return
        except HttpParserError as error:
            if not self._complete:
                if self._held is None or self._release():
                    self._fail(UpstreamError(OriginFailure.PROTOCOL, str(error)))
                return
            excess = True
        if self._held is not None and (not self._complete or self._fields) and not self._release():
            return
        if self._complete:
            self._finish(reusable=not excess)
        elif self._unproductive > limits.UPSTREAM_MAX_HEAD:
            self._fail(
                UpstreamError(
                    OriginFailure.PROTOCOL, "the origin's head or chunk header is too long"
                )
            )

    def _reads_at_a_glance(self, data: bytes) -> bool:
        """Take the first bytes of a response if they are all of it, and it is plain."""
        if self._method == b"HEAD" or self._protocol is not None:
            return False
        whole = read_whole(data)
        if whole is None:
            return False
        self._keep_alive = self._head_done = self._complete = True
        self._keepalive = self._keepalive_timeout
        self._held, self._held_body = whole
        self._finish(reusable=True)
        return True

    def _feed(self, data: bytes) -> bool:
        """Feed the parser; returns whether anything follows a response to HEAD.

        The parser does not know the method and would wait for the content that Content-Length
        announces in a response to HEAD. It therefore gets only heads then, and is replaced
        afterwards.
        """
        parser = cast(HttpResponseParser, self._parser)
        heads = self._heads
        if self._head_done or (heads is None and self._method != b"HEAD" and is_plain(data)):
            parser.feed_data(data)
            return False
        if heads is None:
            heads = self._heads = HeadFilter()
        elif self._method != b"HEAD" and heads.is_plain(data):
            parser.feed_data(data)
            return False
        while data and not self._head_done:
            lines, data = heads.take(data)
            if lines:
                try:
                    parser.feed_data(lines)
                except HttpParserUpgrade:
                    if self._tunnel is None:
                        raise
            if self._tunnel is not None:
                self._parser = None
                if data:
                    self._tunnel.data_received(data)
                return False
        if heads.repaired:
            heads.repaired = False
            self._owner.repaired_response("whitespace before the colon of a header was removed")
        if self._method == b"HEAD":
            if self._complete:
                self._parser = None
            return bool(data)
        if data:
            parser.feed_data(data)
        return False

    def _pass_on(self, data: bytes) -> None:
        """Pass content of known length on, past the parser, which would copy it."""
        receiver = self._receiver
        assert receiver is not None
        left = self._body_left - len(data)
        self._body_left = max(left, 0)
        try:
            receiver.data(data if left >= 0 else data[:left])
        except Exception as error:
            self._callback_failed(error)
            return
        if left <= 0:
            # It still waits for content that it has not seen.
            self._parser = None
            self._complete = True
            self._finish(reusable=left == 0)

    def _release(self) -> bool:
        """Pass on what is held, as more is to come; False if the request has ended by that."""
        response, data = self._held, self._held_body
        self._held = None
        try:
            if response is not None and self._receiver is not None:
                self._receiver.response(response)
            if data and self._receiver is not None:
                self._receiver.data(data)
        except Exception as error:
            self._callback_failed(error)
        return self._receiver is not None

    def _callback_failed(self, cause: BaseException | None) -> None:
        self._fail(failure_of(cause, self._loop))

    def eof_received(self) -> None:
        self._ended_by_origin(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._idle.cancel()
        self._ended_by_origin(exc)
        self._parser = None  # break the reference cycle
        self._out.clear()
        self._owner.closed(self)

    def _ended_by_origin(self, exc: Exception | None) -> None:
        if self._receiver is None:
            return
        if self._head_done and self._until_close and exc is None:
            self._finish(reusable=False)
            return
        stale = self._requests > 1 and not self._answered
        self._fail(
            UpstreamError(
                OriginFailure.RESET, str(exc) if exc else "the origin closed the connection"
            ),
            Retry.IDEMPOTENT if stale else Retry.NEVER,
        )

    # --- httptools callbacks --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            # A second response to one request: discard it.
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > limits.UPSTREAM_MAX_HEAD or len(self._fields) >= limits.UPSTREAM_MAX_FIELDS:
            raise UpstreamError(OriginFailure.PROTOCOL, "the origin's field section is too large")
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        receiver, parser = self._receiver, self._parser
        if receiver is None or parser is None or self._complete:
            return
        self._unproductive = self._size = 0
        fields, self._fields = self._fields, []
        validate_response_fields(fields)
        status = parser.get_status_code()
        if status == 101 and self._protocol is not None:
            self._switch(receiver, fields, parser.get_http_version().encode())
            return
        if status < 100 or status == 101:
            # RFC 9110 section 7.8: a server MUST NOT switch to a protocol that was not asked for.
            raise UpstreamError(OriginFailure.PROTOCOL, f"the origin answered with status {status}")
        if status < 200:
            if self._interim is None:
                self._interim = InterimRate()
            if not self._interim.allow(self._loop.time()):
                raise UpstreamError(OriginFailure.PROTOCOL, "too many interim responses at once")
            receiver.informational(Response(status, fields))
            return
        self._head_done = True
        self._keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        framed = self._has_framing(fields, version)
        if not response_has_body(self._method, status):
            self._body_left = 0
        elif not framed:
            self._until_close = True
        if self._method == b"HEAD":
            self._complete = True
            # Without a length the parser reads the body until the connection is closed.
            self._keep_alive |= version == "1.1" and not _says_close(fields)
        response = Response(status, fields, version.encode())
        if self._request_done and self._protocol is None:
            self._held, self._held_body = response, b""
        else:
            receiver.response(response)

    def _switch(self, receiver: Receiver, fields: Fields, version: bytes) -> None:
        """The origin switches protocols: what follows the head belongs to the tunnel."""
        assert self._protocol is not None
        response = Response(200, switched(fields, self._protocol, self._key), version)
        self._owner.retired(self)
        tunnel = self._tunnel = H1Tunnel(
            self._transport, receiver, self._counters, self._tunnel_closed, self._loop
        )
        self._transport.set_protocol(tunnel)
        receiver.established(response, tunnel)

    def _tunnel_closed(self) -> None:
        self._receiver = self._tunnel = None
        self._is_open = False
        self._idle.cancel()
        self._owner.closed(self)

    def _has_framing(self, fields: Fields, version: str) -> bool:
        """Whether the message delimits its body (RFC 9112 section 6.3).

        The parser has rejected both framings at once, and repeated or malformed Content-Length.
        """
        framed = False
        self._keepalive = self._keepalive_timeout
        for name, value in fields:
            if name == b"content-length":
                framed = True
                self._body_left = int(value)
            elif name == b"transfer-encoding":
                if framed or value.lower() != b"chunked" or version != "1.1":
                    # RFC 9112 section 6.1: in HTTP/1.0 the framing MUST be treated as faulty; we
                    # accept no coding but chunked (our TE field names none).
                    raise UpstreamError(
                        OriginFailure.PROTOCOL, "the origin's transfer-encoding is faulty"
                    )
                framed = True
            elif name == b"keep-alive" and (hint := _KEEP_ALIVE_TIMEOUT.search(value)):
                # Close before the origin does, so that no request races with its close.
                self._keepalive = min(self._keepalive, max(int(hint[1]) - 1.0, 0.0))
        if version not in ("1.1", "1.0"):
            raise UpstreamError(OriginFailure.PROTOCOL, f"the origin answered in HTTP/{version}")
        return framed

    def on_body(self, body: bytes) -> None:
        self._unproductive = 0
        if self._body_left:
            self._body_left -= len(body)
        if self._held is not None:
            if not self._held_body:
                self._held_body = body
                return
            if not self._release():
                return
        if self._receiver is not None and not self._complete:
            self._receiver.data(body)

    def on_chunk_header(self) -> None:
        self._unproductive = 0

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True

    # --- ends -----------------------------------------------------------------------------------

    def _finish(self, reusable: bool) -> None:
        """The response is complete; keep the connection if the request is complete, too."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return  # aborted by its own receiver
        # Before `available`, which may start the next request.
        held, self._held = self._held, None
        body = self._held_body
        trailers = self._fields
        if trailers:
            trailers = [field for field in trailers if field[0] not in FORBIDDEN_TRAILERS]
            try:
                validate_response_fields(trailers)
            except MessageError as error:
                self.abort()
                failure = UpstreamError(OriginFailure.PROTOCOL, str(error))
                receiver.attempt_failed(failure, Retry.NEVER)
                return
        if (
            reusable
            and self._keep_alive
            and self._keepalive > 0
            and self._request_done
            and not self._write_paused
            and not self._transport.is_closing()
        ):
            if self._read_paused:
                self.resume()
            self._idle.set(self._keepalive)
            self._owner.available(self)
        elif self._request_done and not self._write_paused:
            self.close()
        else:
            # The origin may never read the rest; waiting for it would keep the socket open.
            self.abort()
        if held is None:
            receiver.end_of_response(trailers)
        else:
            receiver.whole(held, body)

    def _fail(self, error: UpstreamError, retry: Retry = Retry.NEVER) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.attempt_failed(error, retry)

    def close(self) -> None:
        """Close gracefully; pending writes are still sent."""
        self._owner.retired(self)
        if self._is_open:
            self._transport.close()

    def abort(self) -> None:
        """Close immediately, without callbacks."""
        self._receiver = None
        self._owner.retired(self)
        if self._is_open:
            self._transport.abort()

    def terminate(self) -> None:
        self._fail(UpstreamError(OriginFailure.RESET, "the edge closed the connection"))


def _says_close(fields: Fields) -> bool:
    """RFC 9112 section 9.3: whether Connection has the option "close"."""
    return any(
        option.strip().lower() == b"close"
        for name, value in fields
        if name == b"connection"
        for option in value.split(b",")
    )
