"""Port 80: redirects requests to https (RFC 9110 section 15.4.9), and answers ACME's HTTP-01."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, cast

from quicedge.config.host_port import HostPort
from quicedge.config.limits import MAX_URI, REDIRECT_IDLE, REDIRECTS_PER_TURN
from quicedge.http.h1_head import HeadReader, RequestHead
from quicedge.http.h1_response import encode_response
from quicedge.http.message import Field, Request
from quicedge.http.validation import MessageError
from quicedge.proxy.error_response import error_response
from quicedge.proxy.router import host_of

Challenge = Callable[[bytes], bytes | None]
"""The content that a certificate authority asks for under a path (RFC 8555 section 8.3)."""

CHALLENGE_PATH = b"/.well-known/acme-challenge/"


class Answered(NamedTuple):
    """A request on port 80 and its response, for the access log."""

    client: HostPort
    request: Request | None
    """None: it is malformed, or never came to its end."""
    status: int
    reason: str | None
    """Why it is refused."""
    bytes_sent: int
    """Content of the response."""


class RedirectSite:
    """What all connections to port 80 share."""

    def __init__(
        self,
        heads: HeadReader,
        https_port: int,
        *,
        header_timeout: float,
        date: Callable[[], bytes],
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        challenge: Challenge = lambda path: None,
        on_answered: Callable[[Answered], None] = lambda answered: None,
    ) -> None:
        """`on_answered` is called for each response."""
        self.heads = heads
        """Of scheme http."""
        self.https_port = https_port
        self.header_timeout = header_timeout
        self.challenge = challenge
        self.on_answered = on_answered
        self.draining = False
        self.date = date
        self.clock = clock
        self.loop = loop
        self.counters: Counter[int] = Counter()
        """Responses by status."""
        self.sessions: set[RedirectSession] = set()

    def configure(self, heads: HeadReader, header_timeout: float) -> None:
        """Apply a configuration to the next request of each connection."""
        self.heads = heads
        self.header_timeout = header_timeout

    @property
    def by_status(self) -> dict[str, int]:
        """`counters`, for telemetry."""
        return {str(status): count for status, count in self.counters.items()}

    def check(self, now: float) -> None:
        """Close connections that are idle, slow, or do not end; call about once per second."""
        for session in list(self.sessions):
            session.check(now)

    def drain(self) -> None:
        """Close idle connections, and all others after their next response."""
        self.draining = True
        for session in list(self.sessions):
            session.close_if_idle()

    def answer(self, head: RequestHead) -> tuple[int, list[Field], bytes]:
        """Status, fields and content of the response to a request."""
        request = head.request
        if request.path.startswith(CHALLENGE_PATH):
            content = self.challenge(request.path)
            if content is not None:
                return 200, [(b"content-type", b"application/octet-stream")], content
        host = host_of(request.authority)
        if not host:
            raise MessageError("host is missing")
        name = f"[{host}]" if ":" in host else host
        port = b"" if self.https_port == 443 else b":%d" % self.https_port
        path = b"/" if request.path == b"*" else request.path
        return 308, [(b"location", b"https://%b%b%b" % (name.encode(), port, path))], b""


class RedirectSession(asyncio.Protocol):
    """One connection to port 80: requests without content, one after the other.

    What is sent ahead waits, unread, for a turn of its own, and until the client takes responses.
    """

    def __init__(self, site: RedirectSite, client: HostPort, on_lost: Callable[[], None]) -> None:
        self._site = site
        self._client = client
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._since = site.clock()
        """When the connection was opened, became idle, got the start of a head, or was closed by
        us."""
        self._closing = False
        self._waiting = False
        """Reading is paused, and goes on in the next turn of the loop."""
        self._writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._site.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._site.sessions.discard(self)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # read, so that the response is not cut off by a reset
        # Empty lines between requests are no start of one (RFC 9112 section 2.2).
        if not self._buffer and data.strip(b"\r\n"):
            self._since = self._site.clock()
        self._buffer += data
        if not self._waiting and not self._writing_paused:
            self._read()

    def _read(self) -> None:
        """Answer what was received, up to REDIRECTS_PER_TURN requests."""
        buffer = self._buffer
        most = MAX_URI + self._site.heads.limits.max_size
        left = REDIRECTS_PER_TURN
        at = 0
        while not self._closing:
            while buffer.startswith(b"\r\n", at):
                at += 2  # RFC 9112 section 2.2
            end = buffer.find(b"\r\n\r\n", at, at + most)
            if end < 0:
                del buffer[:at]
                if len(buffer) >= most:
                    self._refuse(431, "the head is too long")
                return
            if not left or self._writing_paused:
                del buffer[:at]
                if not self._writing_paused:
                    self._wait()
                return
            left -= 1
            head = bytes(buffer[at:end])
            at = end + 4
            self._respond(head)

    def _wait(self) -> None:
        """Read on in a turn of its own."""
        self._transport.pause_reading()
        self._waiting = True
        self._site.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._waiting = False
        if self._closing or self._writing_paused:
            return
        self._transport.resume_reading()
        self._read()

    def pause_writing(self) -> None:
        self._writing_paused = True
        if not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if not self._closing and not self._waiting:
            self._wait()

    def eof_received(self) -> bool:
        return False

    def check(self, now: float) -> None:
        """Close the connection if it is past its deadline."""
        waited = now - self._since
        if self._writing_paused:
            if waited > REDIRECT_IDLE:
                self._transport.abort()  # it does not take responses
        elif self._closing or not self._buffer:
            if waited > REDIRECT_IDLE:
                self._transport.abort() if self._closing else self._close()
        elif waited > self._site.header_timeout:
            self._refuse(408, "the head did not come in time")

    def close_if_idle(self) -> None:
        if not self._buffer and not self._closing:
            self._close()

    def _respond(self, head_bytes: bytes) -> None:
        site = self._site
        self._since = site.clock()
        try:
            head = site.heads.read(head_bytes, b"")
            status, fields, content = site.answer(head)
        except MessageError as error:
            self._refuse(error.status_hint, str(error))
            return
        # Content is not read: what follows could not be distinguished from it.
        last = site.draining or not head.persistent or head.chunked or not head.request.ended
        shown = b"" if head.request.method == b"HEAD" else content
        if not (last or head.minor):
            # Otherwise an HTTP/1.0 client would wait for the end (RFC 9112 section 9.3).
            fields.append((b"connection", b"keep-alive"))
        self._write(status, fields, content, shown, last)
        self._site.on_answered(Answered(self._client, head.request, status, None, len(shown)))

    def _refuse(self, status: int, reason: str) -> None:
        response, _ = error_response(status, None)
        fields = [field for field in response.fields if field[0] != b"content-length"]
        self._write(status, fields, b"", b"", last=True)
        self._site.on_answered(Answered(self._client, None, status, reason, 0))

    def _write(
        self, status: int, fields: list[Field], content: bytes, shown: bytes, last: bool
    ) -> None:
        self._site.counters[status] += 1
        fields = [*fields, (b"date", self._site.date()), (b"content-length", b"%d" % len(content))]
        if last:
            fields.append((b"connection", b"close"))
        self._transport.write(encode_response(status, fields) + shown)
        if last:
            self._close()

    def _close(self) -> None:
        self._closing = True
        self._since = self._site.clock()
        self._buffer.clear()
        self._transport.resume_reading()  # unread bytes would cut off the response
        self._transport.write_eof()
