"""gRPC through an upstream to a grpcio server: unary, streaming both ways, status in trailers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from quicedge.http.message import Request
from tests.support.origins import Recorder, fetch, upstream

grpc = pytest.importorskip("grpc")


def _unary(message: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("seen", str(len(message))),))
    return message[::-1]


def _stream(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for message in messages:
        if message == b"fail":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        yield message * 2


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a grpcio server with /Echo/Unary and /Echo/Stream."""
    running = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Stream": grpc.stream_stream_rpc_method_handler(_stream),
    }
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", methods),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"http://127.0.0.1:{port}"
    running.stop(None).wait(10)


def call(path: str) -> Request:
    fields = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return Request(b"POST", b"https", b"example.com", path.encode(), fields)


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


async def test_unary(server: str) -> None:
    async with upstream(server, protocol="h2") as group:
        for message in (b"abc", bytes(range(256)) * 4000):
            recorder = await fetch(group, call("/Echo/Unary"), framed(message))
            assert recorder.status == 200
            assert bytes(recorder.body) == framed(message[::-1])
            assert dict(recorder.trailers)[b"grpc-status"] == b"0"
            assert dict(recorder.trailers)[b"seen"] == b"%d" % len(message)


async def test_streaming_in_lock_step(server: str) -> None:
    async with upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(call("/Echo/Stream"), recorder)
        expected = b""
        for number in range(50):
            message = b"message %d" % number
            stream.write(framed(message))
            expected += framed(message * 2)
            await recorder.until(_has(recorder, expected))
        stream.end()
        await recorder.over()
        assert recorder.events[-1] == "end"
        assert dict(recorder.trailers)[b"grpc-status"] == b"0"


def _has(recorder: Recorder, expected: bytes) -> Callable[[], bool]:
    return lambda: bytes(recorder.body) == expected


async def test_an_error_comes_as_trailers(server: str) -> None:
    async with upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(call("/Echo/Stream"), recorder)
        stream.write(framed(b"one"))
        await recorder.until(lambda: bool(recorder.body))
        stream.write(framed(b"fail"))
        await recorder.over()
        assert recorder.events[-1] == "end", recorder.error
        assert dict(recorder.trailers)[b"grpc-status"] == b"8"
        assert dict(recorder.trailers)[b"grpc-message"] == b"enough"


async def test_an_unknown_method_is_a_response_of_trailers_alone(server: str) -> None:
    async with upstream(server, protocol="h2") as group:
        recorder = await fetch(group, call("/Echo/Absent"), framed(b""))
        assert recorder.head is not None
        assert dict([*recorder.head.fields, *recorder.trailers])[b"grpc-status"] == b"12"


async def test_a_call_given_up_leaves_the_connection(server: str) -> None:
    async with upstream(server, protocol="h2") as group:
        recorder = Recorder()
        stream = group.open(call("/Echo/Stream"), recorder)
        stream.write(framed(b"one"))
        await recorder.until(lambda: bool(recorder.body))
        stream.abort()
        again = await fetch(group, call("/Echo/Unary"), framed(b"abc"))
        assert bytes(again.body) == framed(b"cba")
        assert group.stats()[stream.server]["open"] == 1
