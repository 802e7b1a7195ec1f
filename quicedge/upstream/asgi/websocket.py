"""A WebSocket to an application: the edge is its server (RFC 6455, by `websockets`).

The client's side of the edge is a tunnel, whatever its HTTP version: it carries the bytes of
frames, which are translated to messages here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from quicedge.config.limits import (
    APP_WEBSOCKET_MAX_MESSAGE,
    APP_WEBSOCKET_PING_INTERVAL,
    TUNNEL_CLOSE_TIMEOUT,
)
from quicedge.http.errors import OriginFailure
from quicedge.http.message import Field, Fields, Response
from quicedge.http.upgrade import encode_key
from quicedge.upstream.asgi.application import Message, Scope
from quicedge.upstream.asgi.http import checked_fields, content_of
from quicedge.upstream.asgi.scope import websocket_scope
from quicedge.upstream.asgi.stream import AppStream, Call, ClientDisconnected
from quicedge.upstream.base import ResponseHandler, TunnelHandler
from quicedge.upstream.deadline import Deadline

_quiet = logging.getLogger(f"{__name__}.frames")
"""Our own logs say what became of a tunnel."""
_quiet.setLevel(logging.CRITICAL)

_NORMAL, _NO_STATUS, _ABNORMAL, _INTERNAL_ERROR = 1000, 1005, 1006, 1011
"""RFC 6455 section 7.4.1."""


class WebSocketStream(AppStream):
    """One call of an application with a `websocket` scope."""

    needs_place = False
    """The tunnels of a route are limited (`max_tunnels`)."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._protocol = ServerProtocol(
            extensions=[ServerPerMessageDeflateFactory()],
            max_size=APP_WEBSOCKET_MAX_MESSAGE,
            logger=_quiet,
        )
        self._messages: deque[tuple[Message, int]] = deque()
        """Messages that the application has not received, and their sizes."""
        self._fragments: list[bytes] = []
        self._is_text = False
        self._early: list[bytes] = []
        """Bytes that came before the application accepted."""
        self._told_to_connect = False
        self._accepted = False
        self._refusing = False
        """A response is on its way in place of the WebSocket."""
        self._closed_by_app = False
        self._disconnect: Message | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._pinged = False
        """A ping was sent, and nothing has come since."""
        self._deadline = Deadline(self.upstream.loop, self._waited_too_long)
        self._deadline.set(self.upstream.config.first_byte_timeout)

    # --- OriginStream -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.handler is None:
            return
        if not self._accepted:
            self._early.append(data)
            self.hold(len(data))
            return
        self._pinged = False
        self._protocol.receive_data(data)
        self._take_events()

    def end(self, trailers: Sequence[Field] = ()) -> None:
        """The client has ended its half, with or without a Close frame."""
        if self._accepted and self.handler is not None:
            self._protocol.receive_eof()
            self._take_events()
            self._closed()

    def finish(self) -> ResponseHandler | None:
        self._deadline.cancel()
        if self._ping is not None:
            self._ping.cancel()
        if self._disconnect is None:
            self._disconnect = _disconnected(_ABNORMAL, "")
        return super().finish()

    # --- frames -----------------------------------------------------------------------------------

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        self._flush()
        if self._protocol.close_expected():
            self._closed()

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        data = b"".join(self._fragments)
        self._fragments.clear()
        message: Message = {"type": "websocket.receive"}
        if self._is_text:
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                # RFC 6455 section 8.1: the endpoint MUST fail the connection.
                self._protocol.fail(1007, "text that is not UTF-8")
                return
        else:
            message["bytes"] = data
        self._messages.append((message, len(data)))
        # An empty message is held too: there may be any number of them.
        self.hold(len(data) + 1)
        self.wake()

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and self.handler is not None:
            self.upstream.bytes_received += len(data)
            self.handler.data(data)

    def _closed(self) -> None:
        """Nothing more comes from the client, and nothing more will be sent."""
        if self._disconnect is None:
            code = self._protocol.close_code
            reason = self._protocol.close_reason or ""
            self._disconnect = _disconnected(_NO_STATUS if code is None else code, reason)
        handler = self.finish()
        if handler is not None:
            handler.end(())

    def _keep_alive(self) -> None:
        """Find out whether the client is still there, and keep middleboxes from forgetting it."""
        if self._pinged and not self.is_held_back:
            self._protocol.fail(_INTERNAL_ERROR, "keepalive ping timeout")
            self._flush()
            self._disconnect = _disconnected(_ABNORMAL, "keepalive ping timeout")
            self._closed()
            return
        self._pinged = not self.is_held_back
        if self._pinged and self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()
        self._ping = self.upstream.loop.call_later(APP_WEBSOCKET_PING_INTERVAL, self._keep_alive)

    def _waited_too_long(self) -> None:
        if self._accepted:
            self._closed()
        else:
            detail = "the application has not answered the handshake"
            self.fail(OriginFailure.FIRST_BYTE_TIMEOUT, detail)

    # --- the application --------------------------------------------------------------------------

    def scope(self) -> Scope:
        lifespan, config = self.upstream.lifespan, self.upstream.config
        return websocket_scope(self.request, self.peer, config.root_path, lifespan.state)

    def called(self) -> None:
        """Nothing to do."""

    async def receive(self) -> Message:
        if not self._told_to_connect:
            self._told_to_connect = True
            return {"type": "websocket.connect"}
        while not self._messages:
            if self._disconnect is not None:
                return self._disconnect
            await self.wait_for_input()
        message, size = self._messages.popleft()
        self.release(size + 1)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        await self.wait_for_client()
        if self._accepted:
            self._send_open(kind, message)
        elif kind == "websocket.accept" and not self._refusing:
            self._accept(message)
        elif kind == "websocket.close" and not self._refusing:
            self._refuse(403, [(b"content-length", b"0")])
            self._end_refusal()
        elif kind == "websocket.http.response.start" and not self._refusing:
            self._refuse(message["status"], checked_fields(message.get("headers", ())))
        elif kind == "websocket.http.response.body" and self._refusing:
            data = content_of(message, "body")
            if data and self.handler is not None:
                self.handler.data(data)
            if not message.get("more_body", False):
                self._end_refusal()
        else:
            raise RuntimeError(f"unexpected {kind!r}")

    def _accept(self, message: Message) -> None:
        fields = checked_fields(message.get("headers", ()))
        if any(name == b"sec-websocket-protocol" for name, _ in fields):
            raise ValueError("name the subprotocol in the member subprotocol")
        if (subprotocol := message.get("subprotocol")) is not None:
            fields += checked_fields([(b"sec-websocket-protocol", subprotocol.encode("latin-1"))])
        fields += self._shake_hands()
        self._accepted = True
        self._deadline.clear()
        handler: TunnelHandler = self.handler  # type: ignore[assignment]  # of a tunnel
        handler.established(Response(200, fields))
        self._ping = self.upstream.loop.call_later(APP_WEBSOCKET_PING_INTERVAL, self._keep_alive)
        early, self._early = b"".join(self._early), []
        self.release(len(early))
        if early:
            self.write(early)

    def _shake_hands(self) -> Fields:
        """Bring the protocol into its open state; returns the fields of what was negotiated.

        The handshake of the client has long been validated. The protocol is shown one in HTTP/1.1,
        which is the only one it knows, and its answer is kept for its extensions.
        """
        offers = b"".join(
            b"Sec-WebSocket-Extensions: %b\r\n" % value
            for name, value in self.request.fields
            if name == b"sec-websocket-extensions"
        )
        self._protocol.receive_data(
            b"GET / HTTP/1.1\r\nHost: -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n"
            % (encode_key(bytes(16)), offers)
        )
        (handshake,) = self._protocol.events_received()
        assert isinstance(handshake, Handshake)
        answer = self._protocol.accept(handshake)
        if answer.status_code != 101:
            raise ValueError(f"handshake refused: {answer.reason_phrase}")
        self._protocol.send_response(answer)
        self._protocol.data_to_send()
        name = "Sec-WebSocket-Extensions"
        return [(name.lower().encode(), v.encode()) for v in answer.headers.get_all(name)]

    def _refuse(self, status: int, fields: Fields) -> None:
        if not isinstance(status, int) or not 300 <= status <= 599:
            raise ValueError(f"{status!r} does not refuse a WebSocket")
        self._refusing = True
        self._deadline.clear()
        assert self.handler is not None
        self.handler.response(Response(status, fields))

    def _end_refusal(self) -> None:
        handler = self.finish()
        if handler is not None:
            handler.end(())

    def _send_open(self, kind: str, message: Message) -> None:
        if self._closed_by_app:
            raise RuntimeError(f"{kind!r} after websocket.close")
        try:
            if kind == "websocket.send":
                text = message.get("text")
                if message.get("bytes") is not None:
                    self._protocol.send_binary(content_of(message, "bytes"))
                elif text is not None:
                    self._protocol.send_text(text.encode())
                else:
                    raise ValueError("websocket.send without bytes and text")
            elif kind == "websocket.close":
                self._close(message.get("code") or _NORMAL, message.get("reason") or "")
            else:
                raise RuntimeError(f"unexpected {kind!r}")
        except ConnectionClosed as error:
            raise ClientDisconnected("the WebSocket is closed") from error
        self._flush()

    def _close(self, code: int, reason: str) -> None:
        self._protocol.send_close(code, reason)  # raises for codes and reasons that no frame has
        self._closed_by_app = True
        # The client answers with a Close frame of its own, or is not waited for.
        self._deadline.set(TUNNEL_CLOSE_TIMEOUT)

    # --- its end ----------------------------------------------------------------------------------

    def returned(self) -> None:
        self._leave(_NORMAL)

    def crashed(self) -> None:
        self._leave(_INTERNAL_ERROR)

    def _leave(self, code: int) -> None:
        """The application is gone, whatever the state of its WebSocket."""
        if not self._accepted:
            kind = OriginFailure.RESET if self._refusing else OriginFailure.APPLICATION
            self.fail(kind, "the application left the handshake unanswered")
        elif self.handler is not None and not self._closed_by_app:
            if self._protocol.state is State.OPEN:
                self._close(code, "")
                self._flush()
            else:
                self._closed()


def _disconnected(code: int, reason: str) -> Message:
    return {"type": "websocket.disconnect", "code": int(code), "reason": reason}
