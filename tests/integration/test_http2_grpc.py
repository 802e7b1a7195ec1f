"""grpcio as a client of the edge's TCP port: all four kinds of calls, to h2c and TLS origins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

from quicedge.config import devcerts
from tests.support.edge import RunningEdge, edge

grpc = pytest.importorskip("grpc")

DEADLINE = 30.0


class Service:
    """/Echo/*: what the calls of the tests need of an origin."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def unary(self, message: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("initial", metadata.get("question", "none")),))
        context.set_trailing_metadata((("seen", str(len(message))), ("data-bin", b"\0\xff")))
        if message == b"fail":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        return message[::-1]

    def collect(self, messages: Iterator[bytes], context: Any) -> bytes:
        return b"".join(messages)

    def count(self, message: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(message)):
            yield b"%d" % number

    def echo(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for message in messages:
            yield message * 2

    def forever(self, message: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        yield b"begun"
        self.cancelled.wait(DEADLINE)


@pytest.fixture(scope="module", params=["h2c", "tls"])
def call(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Service]]:
    """A channel through the edge, and the service behind it."""
    directory = tmp_path_factory.mktemp("grpc")
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Collect": grpc.stream_unary_rpc_method_handler(service.collect),
        "Count": grpc.unary_stream_rpc_method_handler(service.count),
        "Echo": grpc.stream_stream_rpc_method_handler(service.echo),
        "Forever": grpc.unary_stream_rpc_method_handler(service.forever),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", methods),))
    extra = 'protocol = "h2"'
    if request.param == "tls":
        files = devcerts.ensure(directory / "origin")
        secrets = grpc.ssl_server_credentials([(files.key.read_bytes(), files.cert.read_bytes())])
        port = server.add_secure_port("127.0.0.1:0", secrets)
        url = f"https://localhost:{port}"
        extra += f'\ntls_ca = "{files.ca}"'
    else:
        port = server.add_insecure_port("127.0.0.1:0")
        url = f"http://127.0.0.1:{port}"
    server.start()
    with edge(directory, url, upstream_extra=extra) as running:
        yield channel_to(running), service
    server.stop(None).wait(10)


def channel_to(running: RunningEdge) -> Any:
    trusted = grpc.ssl_channel_credentials(running.certificate.ca.read_bytes())
    return grpc.secure_channel(f"localhost:{running.port}", trusted)


@pytest.mark.parametrize("size", [0, 3, 3_000_000])
def test_unary(call: tuple[Any, Service], size: int) -> None:
    channel, _ = call
    message = (b"abc" * size)[:size]
    answer, told = channel.unary_unary("/Echo/Unary").with_call(
        message, metadata=(("question", "why"),), timeout=DEADLINE
    )
    assert answer == message[::-1]
    assert dict(told.initial_metadata())["initial"] == "why"
    trailing = dict(told.trailing_metadata())
    assert trailing["seen"] == str(size)
    assert trailing["data-bin"] == b"\0\xff"


def test_a_stream_of_requests(call: tuple[Any, Service]) -> None:
    channel, _ = call
    messages = [b"%d," % number for number in range(1000)]
    answer = channel.stream_unary("/Echo/Collect")(iter(messages), timeout=DEADLINE)
    assert answer == b"".join(messages)


def test_a_stream_of_responses(call: tuple[Any, Service]) -> None:
    channel, _ = call
    answers = channel.unary_stream("/Echo/Count")(b"1000", timeout=DEADLINE)
    assert list(answers) == [b"%d" % number for number in range(1000)]


def test_streams_both_ways_in_lock_step(call: tuple[Any, Service]) -> None:
    channel, _ = call
    answered = threading.Semaphore(1)

    def messages() -> Iterator[bytes]:
        for number in range(100):
            assert answered.acquire(timeout=DEADLINE)
            yield b"%d" % number

    received = []
    for answer in channel.stream_stream("/Echo/Echo")(messages(), timeout=DEADLINE):
        received.append(answer)
        answered.release()
    assert received == [b"%d" % number * 2 for number in range(100)]


def test_an_error_comes_with_its_status(call: tuple[Any, Service]) -> None:
    channel, _ = call
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/Echo/Unary")(b"fail", timeout=DEADLINE)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raised.value.details() == "enough"


def test_an_unknown_method_is_a_response_of_trailers_alone(call: tuple[Any, Service]) -> None:
    channel, _ = call
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/Echo/Absent")(b"", timeout=DEADLINE)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_the_call_at_the_origin_too(call: tuple[Any, Service]) -> None:
    channel, service = call
    service.cancelled.clear()
    answers = channel.unary_stream("/Echo/Forever")(b"", timeout=1.0)
    assert next(answers) == b"begun"
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(DEADLINE)


def test_a_call_that_is_cancelled_ends_at_the_origin_and_no_other(
    call: tuple[Any, Service],
) -> None:
    channel, service = call
    service.cancelled.clear()
    answers = channel.unary_stream("/Echo/Forever")(b"", timeout=DEADLINE)
    assert next(answers) == b"begun"
    answers.cancel()
    assert service.cancelled.wait(DEADLINE)
    assert channel.unary_unary("/Echo/Unary")(b"abc", timeout=DEADLINE) == b"cba"
