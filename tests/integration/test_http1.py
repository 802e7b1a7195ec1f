"""HTTP/1.1 clients of a running edge, octet by octet: what they get and what the origin sees."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.h1client import chunked, get, post
from tests.support.h1raw import RawClient, context, raw_client
from tests.support.peers import wait_until
from tests.support.recording_origin import OK, RecordingOrigin, Seen, recording_origin

LIMITS = """
[limits]
header_timeout = "1s"
"""
BIG = 1_000_000_000


def answer(seen: Seen) -> bytes:
    method, target, _ = seen.line.split(b" ")
    match target:
        case b"/echo":
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (
                len(seen.content), seen.content,
            )  # fmt: skip
        case b"/chunks":
            return (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n"
            )
        case b"/until-close":
            return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end"
        case b"/hints":
            return b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK
        case b"/empty":
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        case b"/unchanged":
            return b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 500\r\n\r\n'
        case b"/cut":
            return b""
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" if method == b"HEAD" else OK


@pytest.fixture(scope="module")
def origin() -> Iterator[RecordingOrigin]:
    with recording_origin(answer) as running:
        yield running


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, origin: RecordingOrigin
) -> Iterator[RunningEdge]:
    with edge(tmp_path_factory.mktemp("edge"), origin.url, LIMITS) as started:
        yield started


@pytest.fixture
def client(running: RunningEdge, origin: RecordingOrigin) -> Iterator[RawClient]:
    origin.forget()
    with raw_client(running) as connected:
        yield connected


# --- one connection, many requests ----------------------------------------------------------------


def test_a_connection_serves_requests_of_every_framing_in_turn(
    client: RawClient, origin: RecordingOrigin
) -> None:
    for request, method, body in (
        (get("/"), "GET", b"ok"),
        (post(b"content").replace(b" / ", b" /echo "), "POST", b"content"),
        (get("/", method="HEAD"), "HEAD", b""),
        (get("/empty"), "GET", b""),
        (get("/unchanged"), "GET", b""),
        (
            chunked(b"one", b"two" * 9000).replace(b" / ", b" /echo "),
            "POST",
            b"one" + b"two" * 9000,
        ),
        (get("/chunks"), "GET", b"hello world"),
        (get("/until-close"), "GET", b"until the end"),
        (get("*", method="OPTIONS"), "OPTIONS", b"ok"),
        (get("https://localhost/absolute"), "GET", b"ok"),
    ):
        client.send(request)
        assert client.reply(method).body == body
    assert origin.requests[-2].line == b"OPTIONS * HTTP/1.1"
    assert origin.requests[-1].line == b"GET /absolute HTTP/1.1"


def test_pipelined_requests_are_answered_in_order(
    client: RawClient, origin: RecordingOrigin
) -> None:
    bodies = [b"%d" % number for number in range(50)]
    client.send(b"".join(post(body).replace(b" / ", b" /echo ") for body in bodies))
    assert [client.reply().body for _ in bodies] == bodies
    assert [seen.content for seen in origin.requests] == bodies


def test_trailers_pass_both_ways(client: RawClient, origin: RecordingOrigin) -> None:
    client.send(chunked(b"hello", trailers="X-Sum: 5\r\nX-Forwarded-For: 9.9.9.9\r\n"))
    assert client.reply().body == b"ok"
    assert origin.requests[0].trailers == [(b"x-sum", b"5")]
    client.send(get("/chunks", "TE: trailers", "Connection: TE"))
    assert client.reply().fields["x-sum"] == "11"
    client.send(get("/chunks"))
    assert "x-sum" not in client.reply().fields


def test_the_origin_learns_of_the_client_and_the_client_of_the_edge(
    client: RawClient, origin: RecordingOrigin
) -> None:
    client.send(get("/", "X-Forwarded-For: 9.9.9.9", "Connection: keep-alive, X-Hop", "X-Hop: 1"))
    reply = client.reply()
    assert reply.fields["via"] == "1.1 quicedge"
    assert "date" in reply.fields
    assert "connection" not in reply.fields
    seen = origin.requests[0]
    assert seen.values(b"via") == [b"1.1 quicedge"]
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert seen.values(b"x-forwarded-proto") == [b"https"]
    assert seen.values(b"host") == [b"localhost"]
    assert not seen.values(b"x-hop")


def test_http_1_0_clients_get_what_they_understand(
    client: RawClient, running: RunningEdge, origin: RecordingOrigin
) -> None:
    client.send(get("/hints", "Connection: keep-alive", version="1.0"))
    status, fields = client.head()
    assert (status, fields["connection"]) == (200, "keep-alive")
    assert client.take(2) == b"ok"
    client.send(get("/chunks", version="1.0"))
    reply = client.reply()
    assert reply.fields["connection"] == "close"
    assert "transfer-encoding" not in reply.fields
    assert reply.body == b"hello world"
    assert origin.requests[-1].values(b"via") == [b"1.0 quicedge"]
    with raw_client(running) as hostless:
        hostless.send(b"GET / HTTP/1.0\r\n\r\n")
        assert hostless.reply().status == 200


def test_a_client_that_asks_for_it_gets_its_connection_closed(client: RawClient) -> None:
    client.send(get("/", "Connection: close"))
    reply = client.reply()
    assert reply.fields["connection"] == "close"
    assert reply.body == b"ok"
    assert client.is_closed()


def test_an_unknown_upgrade_is_ignored(client: RawClient) -> None:
    client.send(get("/", "Connection: Upgrade", "Upgrade: foo/2"))
    assert client.reply().status == 200
    client.send(get("/"))
    assert client.reply().status == 200


# --- expectations, early responses ----------------------------------------------------------------


def test_a_client_that_expects_100_gets_it_from_the_origin(
    client: RawClient, origin: RecordingOrigin
) -> None:
    client.send(get("/echo", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    assert client.head() == (100, {})
    client.send(b"hello")
    assert client.reply().body == b"hello"
    client.send(get("/"))
    assert client.reply().status == 200


def test_interim_responses_reach_the_client(client: RawClient) -> None:
    client.send(get("/hints"))
    assert client.head() == (103, {"link": "</a>"})
    assert client.reply().body == b"ok"


def test_a_refused_upload_is_answered_although_the_client_goes_on_sending(
    running: RunningEdge,
) -> None:
    with raw_client(running) as client:
        client.send(get("/" + "a" * 20_000, "Content-Length: 5000000", method="POST"))
        with contextlib.suppress(OSError):
            client.send(bytes(5_000_000))
        reply = client.reply()
        assert reply.status == 414
        assert reply.fields["connection"] == "close"


def test_an_origin_that_closes_gives_502_and_the_connection_goes_on(client: RawClient) -> None:
    client.send(post(b"x").replace(b" / ", b" /cut "))
    assert client.reply().status == 502
    client.send(get("/"))
    assert client.reply().status == 200


# --- the ends of connections ----------------------------------------------------------------------


def test_a_client_that_closes_its_half_gets_its_answers(running: RunningEdge) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(running).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain:

        def turn(step: object) -> bool:
            """Take a step of TLS; whether it is complete."""
            try:
                step()  # type: ignore[operator]
                done = True
            except ssl.SSLWantReadError:
                done = False
            plain.sendall(outgoing.read())
            return done

        while not turn(tls.do_handshake):
            incoming.write(plain.recv(65536))
        tls.write(get("/1") + get("/chunks"))
        turn(tls.unwrap)  # close_notify
        plain.shutdown(socket.SHUT_WR)
        received = b""
        while data := plain.recv(65536):
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while piece := tls.read(65536):
                    received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.endswith(b"0\r\n\r\n")


def test_the_end_within_content_is_not_taken_for_its_end(
    client: RawClient, origin: RecordingOrigin
) -> None:
    client.send(get("/", "Content-Length: 100", method="POST") + b"half")
    wait_until(lambda: origin.received.endswith(b"half"), "the content")
    socket.socket.shutdown(client.tls, socket.SHUT_WR)
    client.rest()
    assert not origin.requests
    client.tls.close()


def test_a_slow_head_is_answered_408(running: RunningEdge) -> None:
    with raw_client(running) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert client.reply().status == 408
        assert client.is_closed()


def test_an_endless_head_is_answered_431(running: RunningEdge) -> None:
    with raw_client(running) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for number in range(20_000):
                client.send(b"X-%d: y\r\n" % number)
        assert client.reply().status == 431


# --- long transfers -------------------------------------------------------------------------------


@contextlib.contextmanager
def long_origin(stall: float) -> Iterator[tuple[str, list[int]]]:
    """Answers a GET with BIG octets, and takes BIG octets of anything else, after a while of taking
    nothing. Yields its URL and how much it took."""
    taken = [0]
    block = bytes(1_000_000)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as file:
            is_get = file.readline().startswith(b"GET")
            while file.readline() != b"\r\n":
                pass
            if is_get:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG)
                for _ in range(BIG // len(block)):
                    connection.sendall(block)
            else:
                time.sleep(stall)
                while taken[0] < BIG:
                    taken[0] += len(file.read1(1 << 20))
                connection.sendall(OK)
            file.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken


def resident_peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_long_download_to_a_client_that_stalls_takes_no_memory(tmp_path: Path) -> None:
    with long_origin(0) as (url, _), edge(tmp_path, url) as running:
        before = resident_peak(running.worker_pid())
        with raw_client(running, receive_buffer=65536) as client:
            client.send(get("/"))
            status, fields = client.head()
            assert (status, fields["content-length"]) == (200, str(BIG))
            received = len(client.data)
            time.sleep(2)
            while received < BIG:
                received += len(client.tls.recv(1 << 20))
        assert received == BIG
        assert resident_peak(running.worker_pid()) - before < 16_000_000


def test_a_long_upload_to_an_origin_that_stalls_takes_no_memory(tmp_path: Path) -> None:
    with long_origin(2) as (url, taken), edge(tmp_path, url) as running:
        before = resident_peak(running.worker_pid())
        with raw_client(running) as client:
            client.send(get("/", f"Content-Length: {BIG}", method="POST"))
            block = bytes(1_000_000)
            for _ in range(BIG // len(block)):
                client.send(block)
            assert client.reply().status == 200
        assert taken == [BIG]
        assert resident_peak(running.worker_pid()) - before < 16_000_000
