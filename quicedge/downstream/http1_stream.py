"""The client's side of the exchanges of an HTTP/1.1 connection, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from quicedge.config.limits import H1_WRITE_SIZE
from quicedge.http.h1_head import RequestHead
from quicedge.http.h1_response import encode_response, encode_trailers
from quicedge.http.message import Field, Response
from quicedge.http.semantics import response_has_body
from quicedge.http.upgrade import switching_fields
from quicedge.http.validation import FORBIDDEN_TRAILERS
from quicedge.proxy.exchange import Exchange

_MAX_DIGITS = 19
"""Of a length: more exceed any."""


class _Framing(Enum):
    """What delimits the content of the response (RFC 9112 section 6.3)."""

    NONE = auto()
    """There is no content."""
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    """The end of the connection, for HTTP/1.0 clients."""
    TUNNEL = auto()
    """Nothing: the protocol is another."""


class Session(Protocol):
    """The connection of the stream (`http1.Http1Session`)."""

    is_draining: bool
    """No request may follow the running one."""
    wake_scheduled: bool
    """What is pending is written at the end of this turn of the loop."""

    def may_persist(self) -> bool:
        """Whether another request may follow although the running one is not complete."""

    def accepted(self, exchange: Exchange) -> None: ...

    def exchange_done(self, exchange: Exchange) -> None: ...

    def wake(self) -> None:
        """Write what is pending at the end of this turn of the loop."""

    def flush(self) -> None:
        """Write what is pending now."""

    def response_ended(self) -> None:
        """The last byte of a response is pending."""

    def switch_protocols(self) -> None:
        """The pending head switches protocols: what the client sends belongs to the tunnel."""

    def tunnel_ended(self) -> None:
        """The last byte of the origin's half of a tunnel is pending."""

    def cut_off(self) -> None:
        """Close abruptly, which shows the client that its response is incomplete."""

    def finish(self) -> None:
        """Close when everything written is sent."""

    def consumed(self, nbytes: int) -> None:
        """Return the credit of request body bytes."""

    def stop_request(self) -> None:
        """The rest of the request is not wanted."""

    @property
    def undelivered(self) -> int:
        """Bytes written that the client has not acknowledged."""


class RequestStream:
    """A `proxy.exchange.Downstream` that is used for one exchange after the other.

    `begin` is called before each. Pieces of a response gather in `pending` and are written at once.
    """

    __slots__ = (
        "_framing", "_left", "_session", "exchange", "head", "pending", "pending_bytes",
        "persistent", "stream_id",
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        self._session = session
        self.stream_id = 0
        """The number of the request on its connection, from 1."""
        self.exchange: Exchange | None = None
        self.head: RequestHead
        self.persistent = True
        """Whether the connection stays open after the response."""
        self.pending: list[bytes] = []
        """Pieces of the response that are not written yet."""
        self.pending_bytes = 0
        self._framing = _Framing.NONE
        self._left = 0
        """Bytes of content still to be written, if the response declares a length."""

    def begin(self, head: RequestHead) -> None:
        """A request was received."""
        self.stream_id += 1
        self.head = head
        self.persistent = head.persistent
        self._framing = _Framing.NONE

    # --- proxy.exchange.Downstream ----------------------------------------------------------------

    def accepted(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._session.accepted(exchange)

    def done(self, exchange: Exchange) -> None:
        self.exchange = None
        self._session.exchange_done(exchange)

    def informational(self, response: Response) -> None:
        # RFC 9110 section 15.2: a server MUST NOT send one to an HTTP/1.0 client.
        if self.head.minor:
            self.pending.append(encode_response(response.status, response.fields))
            self._session.wake()

    def response(self, response: Response, end: bool) -> None:
        status, fields, head = response.status, response.fields, self.head
        if status == 101:
            self._switch(response)
            return
        request = head.request
        declared = None
        for name, value in fields:
            if name == b"content-length":
                if declared is not None or not value.isdigit() or len(value) > _MAX_DIGITS:
                    fields = self._without_length(fields)
                    declared = None
                    break
                declared = value
        lines = b""
        if not response_has_body(request.method, status):
            self._framing = _Framing.NONE
        elif declared is not None or end:
            self._framing = _Framing.LENGTH
            self._left = int(declared or 0)
            if declared is None:
                lines = b"content-length: 0\r\n"
        elif head.minor:
            self._framing = _Framing.CHUNKED
            lines = b"transfer-encoding: chunked\r\n"
        else:
            self._framing = _Framing.CLOSE
            self.persistent = False
        session = self._session
        if self.persistent and (
            session.is_draining or not (request.ended or session.may_persist())
        ):
            self.persistent = False
        if not self.persistent:
            lines += b"connection: close\r\n"
        elif not head.minor:
            lines += b"connection: keep-alive\r\n"
        self.pending.append(encode_response(status, fields, lines))
        if end:
            session.response_ended()
        elif not session.wake_scheduled:
            session.wake()

    def _switch(self, response: Response) -> None:
        """Switch protocols (RFC 9110 section 7.8)."""
        assert self.exchange is not None
        self._framing = _Framing.TUNNEL
        self.persistent = False
        fields = switching_fields(self.exchange.request, response.fields)
        self.pending.append(encode_response(101, fields))
        self._session.switch_protocols()
        self._session.wake()

    @staticmethod
    def _without_length(fields: Sequence[Field]) -> list[Field]:
        """The fields without a faulty declaration of a length: the framing is ours."""
        return [field for field in fields if field[0] != b"content-length"]

    def write(self, data: bytes) -> None:
        framing, size = self._framing, len(data)
        if not size or framing is _Framing.NONE:
            return
        if framing is _Framing.LENGTH:
            if size > self._left:
                # The client would take the rest for another response.
                self.reset(internal=True)
                return
            self._left -= size
            self.pending.append(data)
        elif framing is _Framing.CHUNKED:
            self.pending += (b"%x\r\n" % size, data, b"\r\n")
        else:
            self.pending.append(data)
        self.pending_bytes += size
        session = self._session
        if self.pending_bytes >= H1_WRITE_SIZE:
            session.flush()
        elif not session.wake_scheduled:
            session.wake()

    def end(self, trailers: Sequence[Field]) -> None:
        if self._framing is _Framing.TUNNEL:
            self._session.tunnel_ended()
            return
        if self._framing is _Framing.CHUNKED:
            # RFC 9110 section 6.5.1: only to a client that has said that it takes them.
            taken = self.head.takes_trailers
            self.pending.append(encode_trailers(_permitted(trailers) if taken and trailers else ()))
        elif self._framing is _Framing.LENGTH and self._left:
            # The client must not wait for the rest.
            self.reset(internal=True)
            return
        self._session.response_ended()

    def whole(self, response: Response, data: bytes) -> None:
        self.response(response, end=not data)
        if data:
            self.write(data)
            self.end(())

    def reset(self, internal: bool) -> None:
        self.persistent = False
        if self._framing is _Framing.CLOSE or self._framing is _Framing.TUNNEL:
            self._session.cut_off()  # an orderly end would look like that of the content
        else:
            self._session.finish()

    def consumed(self, nbytes: int) -> None:
        self._session.consumed(nbytes)

    def stop_request(self) -> None:
        self._session.stop_request()

    @property
    def undelivered(self) -> int:
        return self._session.undelivered


def _permitted(trailers: Sequence[Field]) -> list[Field]:
    return [field for field in trailers if field[0] not in FORBIDDEN_TRAILERS]
