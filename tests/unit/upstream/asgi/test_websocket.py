"""WebSockets of applications, with the frames of a real client."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from quicedge.http.errors import OriginFailure
from quicedge.upstream.asgi import websocket as module
from tests.support.asgi import TIMEOUT, Answer, ask, request, serving
from tests.support.origins import eventually

MASK = bytes(4)
ACCEPT = {"type": "websocket.accept"}


class Chat:
    """The client's end of a WebSocket through a stream."""

    def __init__(self, answer: Answer, *, deflate: bool = False) -> None:
        self.answer = answer
        self.protocol = ClientProtocol(parse_uri("wss://app.example/"), state=State.OPEN)
        if deflate:
            self.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
        self._read = 0
        self.frames: list[Frame] = []

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.answer.stream.write(data)

    def send(self, text: str) -> None:
        self.protocol.send_text(text.encode())
        self.flush()

    def take(self) -> list[Frame]:
        data, self._read = self.answer.body[self._read :], len(self.answer.body)
        self.protocol.receive_data(data)
        events = self.protocol.events_received()
        self.frames += [event for event in events if isinstance(event, Frame)]
        return self.frames

    @property
    def close(self) -> Close:
        """What the Close frame of the edge says."""
        (frame,) = (frame for frame in self.take() if frame.opcode is Opcode.CLOSE)
        return Close.parse(frame.data)

    async def until(self, number: int) -> list[Frame]:
        """The first `number` frames."""
        await self.answer.until(lambda _: len(self.take()) >= number)
        return self.frames


def handshake(*fields: tuple[str, str]) -> Any:
    return request("/ws?room=1", *fields, method="CONNECT", ended=False, protocol=b"websocket")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        content = {key: value for key, value in message.items() if key != "type"}
        await send({"type": "websocket.send", **content})


async def test_scope_and_subprotocol() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"Set-Cookie", b"a=1")]})
        await receive()

    async with serving(app) as upstream:
        answer = ask(upstream, handshake(("sec-websocket-protocol", "superchat, chat")))
        await answer.until(lambda a: a.is_open)
        answer.stream.abort()
    (scope,) = scopes
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "wss", "/ws")
    assert scope["subprotocols"] == ["superchat", "chat"]
    assert answer.head.status == 200
    assert answer.head.fields == [(b"set-cookie", b"a=1"), (b"sec-websocket-protocol", b"chat")]


async def test_messages_are_echoed_and_the_close_is_answered() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        chat = Chat(answer)
        chat.send("hällo")
        chat.protocol.send_binary(b"\0\xff")
        chat.flush()
        text, binary = await chat.until(2)
        assert (text.opcode, bytes(text.data).decode()) == (Opcode.TEXT, "hällo")
        assert (binary.opcode, bytes(binary.data)) == (Opcode.BINARY, b"\0\xff")
        chat.protocol.send_close(1000, "bye")
        chat.flush()
        await answer.finished()
        assert chat.close.code == 1000


async def test_fragments_are_one_message_and_pings_are_answered_between_them() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        chat = Chat(answer)
        chat.protocol.send_text(b"one ", fin=False)
        chat.protocol.send_ping(b"?")
        chat.protocol.send_continuation(b"message", fin=True)
        chat.flush()
        pong, message = await chat.until(2)
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"?")
        assert bytes(message.data) == b"one message"
        answer.stream.abort()


async def test_messages_are_compressed_if_the_client_offers_it() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, handshake(("sec-websocket-extensions", "permessage-deflate")))
        await answer.until(lambda a: a.is_open)
        assert dict(answer.head.fields)[b"sec-websocket-extensions"].startswith(
            b"permessage-deflate"
        )
        chat = Chat(answer, deflate=True)
        chat.send("x" * 10_000)
        (frame,) = await chat.until(1)
        assert len(frame.data) == 10_000
        assert len(answer.body) < 200
        answer.stream.abort()


async def test_a_compressed_bomb_is_refused_before_it_fills_the_memory() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, handshake(("sec-websocket-extensions", "permessage-deflate")))
        await answer.until(lambda a: a.is_open)
        packer = zlib.compressobj(wbits=-15)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64))
        bomb += packer.flush(zlib.Z_SYNC_FLUSH)[:-4]
        chat = Chat(answer)
        answer.stream.write(b"\xc2\xff" + len(bomb).to_bytes(8, "big") + MASK + bomb)
        await answer.finished()
        assert chat.close.code == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(b"\x81\x81" + MASK + b"\xff", 1007, id="text that is not UTF-8"),
        pytest.param(b"\x80\x81" + MASK + b"x", 1002, id="continuation of nothing"),
        pytest.param(b"\x82\x01x", 1002, id="not masked"),
        pytest.param(b"\xa2\x81" + MASK + b"x", 1002, id="reserved bit"),
        pytest.param(b"\x89\xfe\0\x7e" + MASK + bytes(126), 1002, id="long ping"),
    ],
)
async def test_malformed_frames_close_with_their_code(frame: bytes, code: int) -> None:
    disconnects: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        disconnects.append(await receive())

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        answer.stream.write(frame)
        await answer.finished()
        chat = Chat(answer)
        assert chat.close.code == code
        async with asyncio.timeout(TIMEOUT):
            while not disconnects:
                await asyncio.sleep(0)
    assert disconnects[0]["type"] == "websocket.disconnect"


async def test_a_client_that_vanishes_is_1006() -> None:
    disconnects: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        disconnects.append(await receive())
        with pytest.raises(OSError, match="the client has gone"):
            await send({"type": "websocket.send", "text": "x"})

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        answer.stream.abort()
        await eventually(lambda: not upstream.running)
    assert disconnects == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_refusal_is_403_or_a_response_of_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["query_string"] == b"room=1":
            await send({"type": "websocket.close", "code": 1008})
            return
        fields = [(b"content-type", b"text/plain")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": fields})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async with serving(app) as upstream:
        closed = ask(upstream, handshake())
        await closed.finished()
        head = request("/ws", method="CONNECT", ended=False, protocol=b"websocket")
        answered = ask(upstream, head)
        await answered.finished()
    assert (closed.head.status, closed.is_open, closed.body) == (403, False, b"")
    assert (answered.head.status, answered.body) == (401, b"who are you?")


@pytest.mark.parametrize("close", [{"code": 1005}, {"code": 99}, {"reason": "x" * 200}])
async def test_a_close_that_no_frame_can_carry_is_an_error_of_the_application(close: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", **close})

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        chat = Chat(answer)
        await chat.until(1)
        assert chat.close.code == 1011
        chat.flush()
        await answer.finished()


async def test_subprotocols_are_tokens_in_both_directions() -> None:
    offered: list[list[str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope["subprotocols"])
        await receive()
        await send({**ACCEPT, "subprotocol": "chat\r\nx-injected: 1"})

    async with serving(app) as upstream:
        answer = ask(upstream, handshake(("sec-websocket-protocol", "chat, ,,v2")))
        await answer.finished()
    assert offered == [["chat", "v2"]]
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.APPLICATION


async def test_an_exception_closes_with_1011_and_returning_with_1000() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        if (await receive())["text"] == "fail":
            raise ZeroDivisionError

    async with serving(app) as upstream:
        for text, code in (("fail", 1011), ("return", 1000)):
            answer = ask(upstream, handshake())
            await answer.until(lambda a: a.is_open)
            chat = Chat(answer)
            chat.send(text)
            await chat.until(1)
            assert chat.close.code == code
            chat.flush()  # the client's Close frame
            await answer.finished()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, asyncio.CancelledError])
async def test_an_exception_before_the_handshake_is_500(error: type[BaseException]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.finished()
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.APPLICATION


async def test_a_client_that_does_not_answer_a_close_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TUNNEL_CLOSE_TIMEOUT", 0.01)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000, "reason": "done"})

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.finished()
        chat = Chat(answer)
        assert chat.close == Close(4000, "done")


async def test_pings_keep_a_websocket_and_their_lack_of_answers_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "APP_WEBSOCKET_PING_INTERVAL", 0.02)
    disconnects: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        disconnects.append(await receive())

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        chat = Chat(answer)
        for number in range(1, 4):
            await chat.until(number)
            assert chat.frames[-1].opcode is Opcode.PING
            chat.flush()  # the answer
        await answer.finished()
        assert chat.take()[-1].opcode is Opcode.CLOSE
        async with asyncio.timeout(TIMEOUT):
            while not disconnects:
                await asyncio.sleep(0)
    assert disconnects[0]["reason"] == "keepalive ping timeout"


async def test_a_slow_client_or_a_slow_application_is_not_a_missing_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ping waits behind what the client has not taken yet, or its answer is not read."""
    monkeypatch.setattr(module, "APP_WEBSOCKET_PING_INTERVAL", 0.01)
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await reading.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serving(app) as upstream:
        slow_client, slow_application = ask(upstream, handshake()), ask(upstream, handshake())
        for answer in (slow_client, slow_application):
            await answer.until(lambda a: a.is_open)
        slow_client.stream.pause()
        chat = Chat(slow_application)
        while not slow_application.request_paused:
            chat.send("x" * 10_000)
        await asyncio.sleep(0.1)  # ten intervals, and nothing must happen
        assert not slow_client.done.is_set()
        assert not slow_application.done.is_set()
        # Both are judged again once they could answer.
        slow_client.stream.resume()
        reading.set()
        await slow_client.finished()
        await slow_application.finished()


async def test_an_application_that_does_not_read_pauses_the_client() -> None:
    reading = asyncio.Event()
    received = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await receive()
        await send(ACCEPT)
        await reading.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message["text"])

    async with serving(app) as upstream:
        answer = ask(upstream, handshake())
        await answer.until(lambda a: a.is_open)
        chat = Chat(answer)
        sent = 0
        while not answer.request_paused:
            chat.send("x" * 10_000)
            sent += 10_000
        assert 200_000 < sent < 400_000
        reading.set()
        await answer.until(lambda a: not a.request_paused)
        chat.protocol.send_close(1000)
        chat.flush()
        await answer.finished()
    assert received == sent


async def test_send_waits_for_a_client_that_does_not_keep_up() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            await send({"type": "websocket.send", "bytes": bytes(1000)})
            sent += 1

    async with serving(app) as upstream:
        answer = ask(upstream, handshake(), pausing=True)
        for number in range(1, 4):
            await answer.until(lambda a, n=number: len(a.body) >= 1000 * n)
            await asyncio.sleep(0)
            assert sent == number
            answer.stream.resume()
        answer.stream.abort()


async def test_frames_that_come_before_the_acceptance_are_not_lost() -> None:
    async with serving(echo) as upstream:
        answer = ask(upstream, handshake())
        chat = Chat(answer)
        chat.send("early")
        (frame,) = await chat.until(1)
        assert bytes(frame.data) == b"early"
        answer.stream.abort()


async def test_an_application_that_does_not_answer_the_handshake_times_out() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with serving(app, first_byte_timeout=0.01) as upstream:
        answer = ask(upstream, handshake())
        await answer.finished()
    assert answer.error is not None
    assert answer.error.kind is OriginFailure.FIRST_BYTE_TIMEOUT
