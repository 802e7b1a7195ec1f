"""`quicedge get` at a running edge, and at a server that breaks its promises."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from click.testing import CliRunner, Result

from quicedge.cli import main
from quicedge.cli.exitcodes import ExitCode
from tests.support.certs import write_certificate
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.peers import free_port, wait_until
from tests.support.raworigin import RawOrigin, raw_origin

BODY = b"the content"


def answer(status: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningEdge, RawOrigin]]:
    answers = {
        b"/": answer(b"200 OK", b"x-here: yes", body=BODY),
        b"/moved": answer(b"302 Found", b"location: /", body=b"not wanted"),
        b"/see-other": answer(b"303 See Other", b"location: /"),
        b"/again": answer(b"307 Temporary Redirect", b"location: /echoed"),
        b"/loop": answer(b"302 Found", b"location: /loop"),
        b"/down": answer(b"302 Found", b"location: http://localhost/"),
        b"/silent": b"",
        b"/missing": answer(b"404 Not Found", body=b"nothing here"),
    }
    with (
        raw_origin(answers) as origin,
        edge(tmp_path_factory.mktemp("get"), origin.url) as running,
    ):
        yield running, origin


def get(running: RunningEdge, path: str, *options: str, host: str = "localhost") -> Result:
    url = f"https://{host}:{running.port}{path}"
    return CliRunner().invoke(main, ["get", "--cacert", str(running.certificate.ca), *options, url])


def test_redirects_are_followed_when_asked_on_one_connection(site: Any) -> None:
    running, origin = site
    result = get(running, "/moved")
    assert (result.exit_code, result.stdout_bytes) == (0, b"not wanted")
    result = get(running, "/moved?followed", "-L", "-v")
    assert (result.exit_code, result.stdout_bytes) == (0, BODY)
    assert "< HTTP/3 302" in result.stderr
    assert "< HTTP/3 200" in result.stderr
    for path, method in ((b"/see-other", b"GET"), (b"/again", b"POST")):
        result = get(running, path.decode(), "-L", "-d", "data")
        assert result.exit_code == 0
        # The raw origin takes content for the beginning of the next head.
        assert method + b" /" in origin.heads[-1].split(b"\r\n")[0]

    def one_connection() -> bool:
        taken = {(record["path"], record["connection_id"]) for record in running.access()}
        return any(
            ("/", identity) in taken for path, identity in taken if path == "/moved?followed"
        )

    wait_until(one_connection, "both requests in the access log, of one connection")


def test_endless_and_foreign_redirects_are_errors(site: Any) -> None:
    running, _ = site
    result = get(running, "/loop", "-L", "--max-redirs", "3")
    assert result.exit_code == ExitCode.TOO_MANY_REDIRECTS
    assert "more than 3 redirects" in result.stderr
    result = get(running, "/down", "-L")
    assert result.exit_code == ExitCode.UNSUPPORTED_PROTOCOL
    assert "http://localhost/" in result.stderr


def test_a_redirect_to_another_host_leaves_its_credentials_behind(site: Any) -> None:
    running, origin = site
    origin.answers[b"/away"] = answer(
        b"302 Found", b"location: https://127.0.0.1:%d/" % running.port
    )
    result = get(running, "/away", "-L", host="ann:secret@localhost")
    assert (result.exit_code, result.stdout_bytes) == (0, BODY)
    first, second = origin.heads[-2:]
    assert b"\r\nauthorization: Basic YW5uOnNlY3JldA==" in first
    assert b"authorization" not in second
    assert b"ann" not in first.replace(b"YW5uOnNlY3JldA", b"")


def test_head_prints_the_head(site: Any) -> None:
    running, origin = site
    result = get(running, "/", "-I")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "HTTP/3 200"
    assert "x-here: yes" in lines
    assert f"content-length: {len(BODY)}" in lines
    assert BODY.decode() not in result.stdout
    assert origin.heads[-1].startswith(b"HEAD / ")


def test_fail_turns_a_status_into_an_exit_code(site: Any) -> None:
    running, _ = site
    result = get(running, "/missing")
    assert (result.exit_code, result.stdout_bytes) == (0, b"nothing here")
    result = get(running, "/missing", "--fail", "-v")
    assert (result.exit_code, result.stdout_bytes) == (ExitCode.HTTP_ERROR, b"")
    assert "Error: the server answered 404" in result.stderr
    assert "< HTTP/3 404" in result.stderr
    result = get(running, "/", "--fail")
    assert (result.exit_code, result.stdout_bytes) == (0, BODY)


def test_a_url_keeps_its_empty_query_and_loses_its_userinfo(site: Any) -> None:
    running, origin = site
    assert get(running, "/?", host="ann:secret@localhost").exit_code == 0
    line, host = origin.heads[-1].split(b"\r\n")[:2]
    assert line == b"GET /? HTTP/1.1"
    assert host == b"host: localhost:%d" % running.port


def test_resolve_and_sni_choose_where_and_whose(site: Any) -> None:
    running, _ = site
    there = f"edge.example:{running.port}:127.0.0.1"
    result = get(running, "/", "--resolve", there, host="edge.example")
    assert result.exit_code == ExitCode.CERTIFICATE_NOT_VERIFIED, "it is localhost's certificate"
    assert "edge.example" in result.stderr
    result = get(running, "/", "--resolve", there, "--sni", "localhost", "-k", host="edge.example")
    assert result.exit_code == 0
    # The edge answers for the names of its certificate alone (RFC 9110 section 15.5.20).
    result = get(running, "/", "--resolve", there, "--sni", "localhost", "-H",
                 f"Host: localhost:{running.port}", host="edge.example")  # fmt: skip
    assert (result.exit_code, result.stdout_bytes) == (0, BODY)


def test_an_address_that_does_not_answer_leaves_time_for_the_next(site: Any) -> None:
    running, _ = site
    both = f"edge.example:{running.port}:127.0.0.9,127.0.0.1"
    result = get(running, "/", "--resolve", both, "--sni", "localhost", "-H",
                 f"Host: localhost:{running.port}", host="edge.example")  # fmt: skip
    assert (result.exit_code, result.stdout_bytes) == (0, BODY)


def test_a_certificate_of_an_unknown_ca_is_one_line(site: Any) -> None:
    running, _ = site
    result = CliRunner().invoke(main, ["get", f"https://localhost:{running.port}/"])
    assert result.exit_code == ExitCode.CERTIFICATE_NOT_VERIFIED
    assert len(result.stderr.splitlines()) == 1
    assert "--cacert FILE names a CA to trust" in result.stderr
    assert "CRYPTO_ERROR (" in result.stderr


def test_max_time_ends_a_fetch(site: Any) -> None:
    running, _ = site
    result = get(running, "/silent", "-m", "0.3")
    assert result.exit_code == ExitCode.TIMEOUT
    assert result.stderr.splitlines() == ["Error: operation timed out after 0.3 s"]


def test_a_full_disk_is_one_line(site: Any) -> None:
    running, _ = site
    result = get(running, "/", "-o", "/dev/full")
    assert result.exit_code == ExitCode.WRITE_ERROR
    assert result.stderr.splitlines() == [
        "Error: cannot write the response: No space left on device"
    ]


def test_a_closed_pipe_is_one_line(site: Any) -> None:
    running, _ = site
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-m", "quicedge", "get", "--cacert", str(running.certificate.ca),
             f"https://localhost:{running.port}/"],
            stdout=broken, stderr=subprocess.PIPE, cwd=REPOSITORY, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == ExitCode.WRITE_ERROR
    assert done.stderr == b"Error: cannot write the response: Broken pipe\n"


def test_a_refused_connection_is_named(tmp_path: Path) -> None:
    with (
        raw_origin({}) as origin,
        edge(tmp_path, origin.url, extra="[limits]\nmax_connections_per_address = 1") as running,
        held_connection(running),
    ):
        result = get(running, "/", host="127.0.0.1")
    assert result.exit_code == ExitCode.COULDNT_CONNECT
    assert "CONNECTION_REFUSED" in result.stderr


@contextmanager
def held_connection(running: RunningEdge) -> Iterator[None]:
    """A client that is connected, and stays so."""
    from quicedge.cli.client import Client

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(Client.connect("127.0.0.1", running.port, verify=False))
    try:
        yield
    finally:
        loop.run_until_complete(client.close())
        loop.close()


# --- a server that breaks its promises ------------------------------------------------------------

BROKEN: dict[bytes, tuple[list[tuple[bytes, bytes]], bytes]] = {
    b"/short": ([(b"content-length", b"100")], b"y" * 50),
    b"/nothing": ([(b"content-length", b"100")], b""),
    b"/long": ([(b"content-length", b"10")], b"y" * 50),
    b"/two": ([(b"content-length", b"10"), (b"content-length", b"11")], b"y" * 10),
    b"/word": ([(b"content-length", b"ten")], b"y" * 10),
    b"/right": ([(b"content-length", b"50")], b"y" * 50),
    b"/folded": ([(b"content-length", b"50"), (b"content-length", b"50")], b"y" * 50),
    b"/undeclared": ([], b"y" * 50),
}


IDLE_TIMEOUT = 2.0
LATE = 4.5


class Breaker(QuicConnectionProtocol):
    h3: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.h3 = H3Connection(self._quic)
        if self.h3 is None:
            return
        for item in self.h3.handle_event(event):
            if not isinstance(item, HeadersReceived):
                continue
            stream_id, request = item.stream_id, dict(item.headers)
            if request[b":path"] == b"/late":
                asyncio.get_running_loop().call_later(LATE, self.answer_late, stream_id)
            elif request[b":path"] == b"/reset":
                self._quic.reset_stream(stream_id, 0x102)
            elif request[b":path"] == b"/status":
                self.h3.send_headers(stream_id, [(b":status", b"abc")], end_stream=True)
            else:
                fields, body = BROKEN[request[b":path"]]
                head = request[b":method"] == b"HEAD"
                self.h3.send_headers(stream_id, [(b":status", b"200"), *fields], end_stream=head)
                if not head:
                    self.h3.send_data(stream_id, body, end_stream=True)
            self.transmit()

    def answer_late(self, stream_id: int) -> None:
        assert self.h3 is not None
        self.h3.send_headers(stream_id, [(b":status", b"200")])
        self.h3.send_data(stream_id, b"at last", end_stream=True)
        self.transmit()


@pytest.fixture(scope="module")
def breaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that answers as `BROKEN` says."""
    certificate, key = write_certificate(tmp_path_factory.mktemp("breaker"), "localhost")
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=["h3"], idle_timeout=IDLE_TIMEOUT
    )
    configuration.load_cert_chain(certificate, key)
    port = free_port(socket.SOCK_DGRAM)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        serve("127.0.0.1", port, configuration=configuration, create_protocol=Breaker)
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield port
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def test_a_connection_is_kept_open_while_a_response_is_awaited(breaker: int) -> None:
    assert LATE > 2 * IDLE_TIMEOUT
    result = CliRunner().invoke(main, ["get", "-k", f"https://127.0.0.1:{breaker}/late"])
    assert (result.exit_code, result.stdout) == (0, "at last")


def get_broken(port: int, path: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["get", "-k", *options, f"https://127.0.0.1:{port}{path}"])


@pytest.mark.parametrize(
    ("path", "code", "says", "content"),
    [
        ("/short", 18, "content short of content-length of 100 bytes", 50),
        ("/nothing", 18, "content short of content-length of 100 bytes", 0),
        ("/long", 18, "content beyond content-length of 10 bytes", 0),
        ("/two", 95, "content-length has two values", 0),
        ("/word", 95, "content-length is not a number", 0),
        ("/status", 95, ":status is not a status code", 0),
        ("/reset", 95, "the server reset the stream (H3_INTERNAL_ERROR)", 0),
    ],
)
def test_a_malformed_response_is_an_error(
    breaker: int, path: str, code: int, says: str, content: int
) -> None:
    result = get_broken(breaker, path)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout_bytes) == content


@pytest.mark.parametrize("path", ["/right", "/folded", "/undeclared"])
def test_content_as_declared_is_no_error(breaker: int, path: str) -> None:
    result = get_broken(breaker, path)
    assert (result.exit_code, result.stdout_bytes) == (0, b"y" * 50)


def test_content_length_of_a_response_to_head_promises_nothing(breaker: int) -> None:
    result = get_broken(breaker, "/short", "-I")
    assert result.exit_code == 0, result.output
    assert "content-length: 100" in result.stdout
