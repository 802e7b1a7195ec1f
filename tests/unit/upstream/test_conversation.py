"""Idle timeouts of bidirectional exchanges, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.http.message import Response
from quicedge.upstream.deadline import DeadlinePool
from quicedge.upstream.stream import UpstreamStream
from tests.support.origins import Recorder, request

IDLE = 60.0
CONFIG = UpstreamConfig(servers=["http://a"], idle_timeout=IDLE)


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback = at, callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Timers of an event loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(at, callback)
        self.timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        callback(*arguments)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


class Attempt:
    """A connection and the request on it; takes whatever is written."""

    is_duplex = True
    connected_at = connect_seconds = 0.0

    def start(self, request: object, receiver: object) -> Attempt:
        return self

    def write(self, data: bytes) -> None: ...

    def end(self, trailers: object) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@pytest.fixture
def loop() -> Loop:
    return Loop()


def conversation(loop: Loop) -> tuple[UpstreamStream, Recorder]:
    """A request whose response has begun while its content still comes."""
    recorder = Recorder()
    group: Any = SimpleNamespace(
        config=CONFIG,
        loop=loop,
        deadlines=DeadlinePool(loop),  # type: ignore[arg-type]
        selection=SimpleNamespace(observes=False),
    )
    stream = UpstreamStream(group, request("POST", body=True), recorder)
    stream.attach(Attempt())  # type: ignore[arg-type]
    stream.response(Response(200, [], b"2"))
    return stream, recorder


async def test_an_origin_may_be_silent_while_the_client_speaks(loop: Loop) -> None:
    stream, recorder = conversation(loop)
    for _ in range(24 * 60 * 2):
        loop.advance(IDLE / 2)
        stream.write(b"message")
    assert recorder.error is None
    stream.end()
    stream.data(b"answer")
    stream.end_of_response(())
    assert recorder.events[-1] == "end"


async def test_a_client_may_be_silent_while_the_origin_speaks(loop: Loop) -> None:
    stream, recorder = conversation(loop)
    for _ in range(24 * 60 * 2):
        loop.advance(IDLE / 2)
        stream.data(b"event")
    assert recorder.error is None


async def test_silence_on_both_sides_ends_a_conversation(loop: Loop) -> None:
    stream, recorder = conversation(loop)
    stream.write(b"message")
    loop.advance(IDLE - 1)
    assert recorder.error is None
    loop.advance(2)
    assert recorder.kind == "idle_timeout"


async def test_a_complete_request_leaves_the_origin_to_speak(loop: Loop) -> None:
    stream, recorder = conversation(loop)
    stream.end()
    loop.advance(IDLE + 1)
    assert recorder.kind == "idle_timeout"
