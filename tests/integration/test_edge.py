"""What the edge promises its operator, seen from outside."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quicedge.cli.client import Client, FetchError
from quicedge.config import devcerts
from tests.support.certs import write_certificate
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import caddy, free_edge_port, free_port, wait_until


@pytest.fixture(scope="module")
def through_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    directory = tmp_path_factory.mktemp("edge")
    routes = (
        '[[routes]]\nhost = "localhost"\npath = "/upload"\nupstream = "app"\nmax_body = "100KB"'
    )
    with demo_origin() as origin, edge(directory, origin, extra=routes) as running:
        yield running


async def connect(running: RunningEdge) -> Client:
    return await Client.connect("localhost", running.port, ca_file=str(running.certificate.ca))


async def fetch(running: RunningEdge, method: str, path: str, **options: object):  # type: ignore[no-untyped-def]
    client = await connect(running)
    body = bytearray()
    answer = await client.fetch(
        method,
        f"localhost:{running.port}",
        path,
        on_body=body.extend,
        **options,  # type: ignore[arg-type]
    )
    await client.close()
    return answer, bytes(body)


async def test_a_request_and_its_echo(through_demo: RunningEdge) -> None:
    answer, body = await fetch(
        through_demo, "POST", "/echo?x=1", fields=[(b"x-test", b"1"), (b"cookie", b"a=1"),
                                                  (b"cookie", b"b=2")], body=b"hello",
    )  # fmt: skip
    seen = json.loads(body)
    assert answer.status == 200
    assert seen["method"] == "POST"
    assert seen["target"] == "/echo?x=1"
    assert seen["body"] == {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    assert ["x-test", "1"] in seen["fields"]
    assert ["cookie", "a=1; b=2"] in seen["fields"]
    assert ["host", f"localhost:{through_demo.port}"] in seen["fields"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_every_method(through_demo: RunningEdge, method: str) -> None:
    answer, body = await fetch(through_demo, method, "/echo")
    assert answer.status == 200
    assert json.loads(body)["method"] == method


@pytest.mark.parametrize("status", [204, 304, 404, 418, 500])
async def test_statuses(through_demo: RunningEdge, status: int) -> None:
    answer, body = await fetch(through_demo, "GET", f"/status/{status}")
    assert answer.status == status
    assert (body == b"") == (status in (204, 304))


async def test_head_has_no_body(through_demo: RunningEdge) -> None:
    answer, body = await fetch(through_demo, "HEAD", "/download?size=1MB")
    assert (answer.status, body) == (200, b"")
    assert (b"content-length", b"1000000") in answer.fields


async def test_early_hints_are_relayed(through_demo: RunningEdge) -> None:
    answer, _ = await fetch(through_demo, "GET", "/early-hints")
    assert answer.status == 200
    assert [status for status, _ in answer.interim] == [103]
    assert answer.interim[0][1][0][0] == b"link"


async def test_trailers_come_through(through_demo: RunningEdge) -> None:
    answer, body = await fetch(through_demo, "GET", "/trailers")
    checksum = hashlib.sha256(body).hexdigest().encode()
    assert answer.trailers == [(b"x-checksum", checksum)]


async def test_a_stream_of_events_arrives_as_it_is_sent(through_demo: RunningEdge) -> None:
    client = await connect(through_demo)
    arrived: list[float] = []
    await client.fetch(
        "GET", "localhost", "/events?count=3&interval=0.2",
        on_body=lambda data: arrived.append(time.monotonic()),
    )  # fmt: skip
    await client.close()
    assert len(arrived) >= 3
    assert arrived[-1] - arrived[0] > 0.3


async def test_a_body_over_the_routes_limit_is_refused(through_demo: RunningEdge) -> None:
    declared, _ = await fetch(through_demo, "POST", "/upload", body=b"x" * 100_001,
                              fields=[(b"content-length", b"100001")])  # fmt: skip
    assert declared.status == 413
    undeclared, _ = await fetch(through_demo, "POST", "/upload", body=b"x" * 300_000)
    assert undeclared.status == 413
    good, body = await fetch(through_demo, "POST", "/upload", body=b"x" * 100_000)
    assert (good.status, json.loads(body)["bytes"]) == (200, 100_000)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"connection", b"close")], 400),
        ([(b"te", b"gzip")], 400),
        ([(b"X-Upper", b"1")], 400),
        ([(b"content-length", b"+5")], 400),
        ([(b"host", b"other.example")], 400),
        ([(b"x-big", b"x" * 60_000), (b"x-bigger", b"y" * 60_000)], 431),
    ],
)
async def test_malformed_requests_are_answered(
    through_demo: RunningEdge, fields: list[tuple[bytes, bytes]], status: int
) -> None:
    answer, _ = await fetch(through_demo, "GET", "/", fields=fields)
    assert answer.status == status


async def test_an_authority_that_the_certificate_does_not_cover(through_demo: RunningEdge) -> None:
    client = await connect(through_demo)
    answer = await client.fetch("GET", "bank.example", "/")
    await client.close()
    assert answer.status == 421


async def test_an_origin_that_is_not_there(tmp_path: Path) -> None:
    with edge(tmp_path, f"http://127.0.0.1:{free_port()}") as running:
        answer, body = await fetch(running, "GET", "/")
        assert answer.status == 502
        assert b"127.0.0.1" not in body  # nothing of our inside
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["outcome"] == "origin_connect"


@contextmanager
def tcp_origin(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
) -> Iterator[str]:
    """An origin of a test's own making, in a thread."""
    ready, stop = threading.Event(), threading.Event()
    port = free_port()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)  # type: ignore[arg-type]
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.02)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(5)


async def test_an_origin_that_dies_within_its_response_resets_the_stream(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    with tcp_origin(serve) as origin, edge(tmp_path, origin) as running:
        with pytest.raises(FetchError, match="reset"):
            await fetch(running, "GET", "/")
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["outcome"] == "origin_reset"


async def test_a_client_that_leaves_closes_the_origin(tmp_path: Path) -> None:
    closed = threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await writer.drain()
        await reader.read()  # until the edge closes
        closed.set()
        writer.close()

    with tcp_origin(serve) as origin, edge(tmp_path, origin) as running:
        client = await connect(running)
        with pytest.raises(FetchError):
            await client.fetch("GET", "localhost", "/", timeout=0.5)
        client.connection.reset_stream(0, 0x10C)
        client.connection.stop_stream(0, 0x10C)
        client._flush()
        assert await asyncio.to_thread(closed.wait, 5)
        await client.close()
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["outcome"] == "client_aborted"


async def test_sigterm_lets_a_running_response_finish(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        client = await connect(running)
        task = asyncio.create_task(client.fetch("GET", "localhost", "/slow?seconds=2"))

        def is_active() -> bool:
            rows = running.admin("/api/v1/connections")["connections"]
            return any(row["requests_active"] for row in rows)

        await asyncio.to_thread(wait_until, is_active, "the request")
        running.process.send_signal(signal.SIGTERM)
        answer = await task
        assert answer.status == 200
        assert answer.body_bytes == len("tick 0\ntick 1\n")
        assert await asyncio.to_thread(running.process.wait, 10) == 0
        await client.close()


async def test_sighup_serves_a_new_certificate_and_keeps_connections(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        old = await connect(running)
        assert (await old.fetch("GET", "localhost", "/")).status == 200
        (tmp_path / "certs/dev.pem").unlink()
        (tmp_path / "certs/ca.pem").unlink()
        (tmp_path / "certs/ca.key").unlink()
        fresh = devcerts.ensure(tmp_path / "certs")
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == 1, "the reload")
        new = await Client.connect("localhost", running.port, ca_file=str(fresh.ca))
        assert (await new.fetch("GET", "localhost", "/")).status == 200
        # The old connection was not touched.
        assert (await old.fetch("GET", "localhost", "/")).status == 200
        await old.close()
        await new.close()


def test_keys_are_logged_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        assert running.get("/").returncode == 0
    labels = {line.split()[0] for line in keys.read_text().splitlines()}
    assert "SERVER_HANDSHAKE_TRAFFIC_SECRET" in labels
    assert "CLIENT_TRAFFIC_SECRET_0" in labels
    assert keys.stat().st_mode & 0o077 == 0


def test_retry_always(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, extra='[quic]\nretry = "always"') as running,
    ):
        done = running.get("/echo", "-v")
        assert done.returncode == 0, done.stderr
        stats = running.admin("/api/v1/status")["workers"][0]["stats"]
        assert stats["retries_sent"] == 1


def test_get_writes_the_body_and_shows_the_rest(through_demo: RunningEdge, tmp_path: Path) -> None:
    plain = through_demo.get("/trailers")
    assert plain.stdout == b"a body with a trailer\n"
    assert plain.stderr == b""
    verbose = through_demo.get("/trailers", "-v", "-H", "x-a: b")
    shown = verbose.stderr.decode()
    for part in ("> GET /trailers HTTP/3", "> x-a: b", "< HTTP/3 200", "x-checksum", "handshake",
                 "smoothed_rtt", "congestion_window"):  # fmt: skip
        assert part in shown, shown
    out = tmp_path / "file"
    assert through_demo.get("/download?size=3MB", "-o", str(out)).returncode == 0
    assert out.stat().st_size == 3_000_000
    posted = through_demo.get("/upload", "-d", "hello")
    assert json.loads(posted.stdout)["bytes"] == 5


def test_get_refuses_a_certificate_it_does_not_trust(through_demo: RunningEdge) -> None:
    command = [sys.executable, "-m", "quicedge", "get", f"https://localhost:{through_demo.port}/"]
    strict = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False)
    assert strict.returncode == 60
    assert b"certificate" in strict.stderr.lower()
    lax = subprocess.run([*command, "-k"], capture_output=True, cwd=REPOSITORY, check=False)
    assert lax.returncode == 0


def test_the_demo_shows_a_first_request(tmp_path: Path) -> None:

    port = free_edge_port()
    done = subprocess.run(
        [sys.executable, "-m", "quicedge", "demo", "--once", "--port", str(port)],
        capture_output=True, cwd=tmp_path, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    shown = done.stderr.decode()
    assert done.returncode == 0, shown
    assert "< HTTP/3 200" in shown
    assert "smoothed_rtt" in shown
    assert (tmp_path / "certs/dev.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "tls"])
async def test_caddy_as_an_http2_origin(tmp_path: Path, tls: bool) -> None:
    root = tmp_path / "www"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(3_000_000))
    certificate = write_certificate(tmp_path, "localhost") if tls else None
    extra = f'tls_ca = "{certificate[0]}"' if certificate else 'protocol = "h2"'
    with (
        caddy(tmp_path, root, tls=certificate) as origin,
        edge(tmp_path, origin, upstream_extra=extra) as running,
    ):
        answer, body = await fetch(running, "GET", "/protocol")
        assert (answer.status, body) == (200, b"HTTP/2.0")
        answer, body = await fetch(running, "GET", "/big")
        assert body == (root / "big").read_bytes()


async def test_grpc_through_the_edge(tmp_path: Path) -> None:
    """A unary and a streaming call, in gRPC's framing, to a grpcio server."""
    from concurrent import futures

    import grpc

    def unary(request: bytes, context: object) -> bytes:
        return request[::-1]

    def stream(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        for request in requests:
            yield request * 2

    handler = grpc.method_handlers_generic_handler(
        "Echo",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
        },
    )
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    fields = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]

    def frame(message: bytes) -> bytes:
        return b"\0" + len(message).to_bytes(4, "big") + message

    async def three() -> AsyncIterator[bytes]:
        for number in range(3):
            yield frame(b"m%d" % number)

    try:
        with edge(
            tmp_path, f"http://127.0.0.1:{port}", upstream_extra='protocol = "h2"'
        ) as running:
            answer, body = await fetch(
                running, "POST", "/Echo/Unary", fields=fields, body=frame(b"abc")
            )
            assert body == frame(b"cba")
            assert (b"grpc-status", b"0") in answer.trailers
            answer, body = await fetch(running, "POST", "/Echo/Stream", fields=fields, body=three())
            assert body == frame(b"m0m0") + frame(b"m1m1") + frame(b"m2m2")
            assert (b"grpc-status", b"0") in answer.trailers
            answer, _ = await fetch(running, "POST", "/Echo/Absent", fields=fields, body=frame(b""))
            assert (b"grpc-status", b"12") in answer.trailers + answer.fields
    finally:
        server.stop(None)


async def test_request_trailers_reach_the_origin(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.readuntil(b"0\r\nx-sum: 5\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    with tcp_origin(serve) as origin, edge(tmp_path, origin) as running:
        client = await connect(running)

        async def body() -> AsyncIterator[bytes]:
            yield b"hello"
            assert client._h3 is not None
            client._h3.send_data(0, b"last")
            client._h3.send_trailers(0, [(b"x-sum", b"5")])
            client._flush()

        answer = await client.fetch("POST", "localhost", "/", body=body())
        await client.close()
    assert answer.status == 204
    assert b"transfer-encoding: chunked" in seen[0].lower()
    assert b"hello" in seen[1]
    assert b"last" in seen[1]
