"""HTTP/0.9 over QUIC (ALPN `hq-interop`), behind the same calls as HTTP/3.

The QUIC interop runner's cases speak it: `GET /path` and CRLF on a bidirectional stream, answered
by the bare content. No fields are sent either way, so any status but 200 is a stream reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from quicedge.downstream.http3 import Http3Session
from quicedge.http.errors import H3ErrorCode
from quicedge.http.h3_types import H3StreamError, Handler, Transport
from quicedge.http.message import Field

ALPN_HTTP09 = "hq-interop"

MAX_REQUEST_LINE: Final = 4096
"""Bytes of a request line (interop cases ask for names of 250 characters)."""


class Http09Transport(Transport, Protocol):
    """What the codec needs of a QUIC connection."""

    def reset_stream(self, stream_id: int, error_code: int) -> None: ...


class Http09Connection:
    """The server side of a connection. `authority` stands in for the field that is never sent."""

    def __init__(self, transport: Http09Transport, handler: Handler, *, authority: bytes) -> None:
        self._transport = transport
        self._handler = handler
        self._authority = authority
        self._lines: dict[int, bytes] = {}
        self._asked: set[int] = set()

    # --- to the client --------------------------------------------------------------------------

    def send_headers(
        self, stream_id: int, fields: Sequence[Field], end_stream: bool = False
    ) -> None:
        """Send nothing but what the status decides: content follows 200 alone."""
        status = fields[0][1]
        if status.startswith(b"1"):
            return
        if status != b"200":
            self._transport.reset_stream(stream_id, H3ErrorCode.REQUEST_REJECTED)
        elif end_stream:
            self._transport.send_stream_data(stream_id, b"", end_stream=True)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        if data or end_stream:
            self._transport.send_stream_data(stream_id, data, end_stream)

    def send_message(self, stream_id: int, fields: Sequence[Field], data: bytes) -> None:
        self.send_headers(stream_id, fields, end_stream=not data)
        if data and fields[0][1] == b"200":
            self.send_data(stream_id, data, end_stream=True)

    def send_trailers(self, stream_id: int, fields: Sequence[Field]) -> None:
        self.send_data(stream_id, b"", end_stream=True)

    def send_goaway(self, stream_id: int) -> None:
        """HTTP/0.9 has no such message."""

    def can_send(self, fields: Sequence[Field]) -> bool:
        """No fields are sent, so none exceed a limit of the client's."""
        return True

    def expect_length(self, stream_id: int, length: int) -> None:
        """Requests have no content."""

    # --- from the client ------------------------------------------------------------------------

    def stream_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Receive the next bytes of a stream."""
        self._transport.consume(stream_id, len(data))
        if stream_id in self._asked:
            if end_stream:
                self._asked.discard(stream_id)
            return
        line = self._lines.pop(stream_id, b"") + data
        # Some clients end the line, some the stream, most do both.
        if not end_stream and not line.endswith(b"\n"):
            if len(line) > MAX_REQUEST_LINE:
                self._asked.add(stream_id)
                self._fail(stream_id)
            else:
                self._lines[stream_id] = line
            return
        words = line.split()
        if stream_id & 3 or len(words) != 2 or words[0] != b"GET" or not words[1].startswith(b"/"):
            self._fail(stream_id)
            return
        if not end_stream:
            self._asked.add(stream_id)
        fields = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", self._authority),
            (b":path", words[1]),
        ]
        self._handler.on_headers(stream_id, fields, end_stream=True)
        self._handler.on_end(stream_id)

    def unfinished_heads(self) -> list[int]:
        """Streams whose request line is not complete."""
        return list(self._lines)

    def drop(self, stream_id: int) -> None:
        """Ignore the rest of a stream."""
        self._lines.pop(stream_id, None)
        self._asked.add(stream_id)

    def _fail(self, stream_id: int) -> None:
        error = H3StreamError(H3ErrorCode.MESSAGE_ERROR, "not an HTTP/0.9 request", stream_id)
        self._handler.on_stream_error(error)

    def stream_reset(self, stream_id: int, error_code: int) -> None:
        self._lines.pop(stream_id, None)
        self._asked.discard(stream_id)
        self._handler.on_reset(stream_id, error_code)

    def stop_sending(self, stream_id: int, error_code: int) -> None:
        self._handler.on_stop_sending(stream_id, error_code)


def http09_codec(session: Http3Session) -> Http09Connection:
    """The codec of a session that negotiated HTTP/0.9 (`downstream.http3.CodecFactory`)."""
    connection = session.connection
    session.client.http_version = b"0.9"
    authority = (connection.handshake.server_name or "localhost").encode()
    return Http09Connection(connection, session, authority=authority)
