"""The edge on TCP, as real clients meet it: TLS, plain HTTP, certificates, drain and reload."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quicedge.config import devcerts
from quicedge.http.errors import H2ErrorCode
from quicedge.http.upgrade import accept_value
from tests.support.edge import RunningEdge, edge
from tests.support.h2socket import h2_socket
from tests.support.origin import demo_origin
from tests.support.peers import free_port, require, wait_until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with demo_origin() as origin, edge(tmp_path_factory.mktemp("edge"), origin) as one:
        yield one


def context(running: RunningEdge, *alpn: str) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=str(running.certificate.ca))
    if alpn:
        found.set_alpn_protocols(list(alpn))
    return found


def connect(running: RunningEdge, made: ssl.SSLContext, **options) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    return made.wrap_socket(raw, server_hostname="localhost", **options)


def exchange(sock: ssl.SSLSocket, request: bytes = b"GET /echo HTTP/1.1\r\n") -> bytes:
    """The response to a request that asks to close."""
    sock.sendall(request + b"host: localhost\r\nconnection: close\r\n\r\n")
    answer = b""
    while data := sock.recv(65536):
        answer += data
    return answer


def test_a_server_name_that_is_not_ascii_is_refused_without_a_traceback(
    running: RunningEdge,
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(running).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read().replace(b"localhost", b"local\xffost")
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as raw:
        raw.sendall(hello)
        assert raw.recv(1) == b"\x15", "an alert"
    exchange(connect(running, context(running)))
    assert "Exception ignored" not in running.log()
    assert "UnicodeDecodeError" not in running.log()


def test_an_ordinary_client_gets_a_page_over_tcp_at_the_same_port(running: RunningEdge) -> None:
    client = http.client.HTTPSConnection("localhost", running.port, context=context(running))
    client.request("GET", "/")
    response = client.getresponse()
    assert response.status == 200
    assert b"It works" in response.read()
    client.request("GET", "/echo")
    assert client.getresponse().status == 200


def test_curl_needs_nothing_but_the_ca(running: RunningEdge) -> None:
    done = subprocess.run(
        [require("curl"), "-sS", "--cacert", str(running.certificate.ca),
         f"https://localhost:{running.port}/status/418", "-o", "/dev/null", "-w", "%{http_code}"],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"418", b"")


def test_nghttp_gets_a_page_over_http_2(running: RunningEdge) -> None:
    done = subprocess.run(
        [require("nghttp"), "-v", "--no-verify-peer", f"https://localhost:{running.port}/echo"],
        capture_output=True, timeout=30, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "The negotiated protocol: h2" in done.stdout
    assert ":status: 200" in done.stdout


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_served_and_older_ones_are_not(
    running: RunningEdge, version: ssl.TLSVersion
) -> None:
    made = context(running, "http/1.1")
    made.minimum_version = made.maximum_version = version
    with connect(running, made) as sock:
        assert sock.version() == version.name.replace("v1_", "v1.")
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert sock.compression() is None
        assert exchange(sock).startswith(b"HTTP/1.1 200 ")


def test_ciphers_without_forward_secrecy_or_aead_are_refused(running: RunningEdge) -> None:
    for ciphers in ("kRSA", "ECDHE+AESGCM:!ECDHE+AESGCM:ECDHE+AES+SHA1"):
        made = context(running)
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            connect(running, made)


def test_a_client_resumes_its_session_also_after_a_reload(running: RunningEdge) -> None:
    made = context(running, "http/1.1")
    with connect(running, made) as sock:
        assert not sock.session_reused
        exchange(sock)
        session = sock.session
    with connect(running, made, session=session) as sock:
        assert sock.session_reused
        exchange(sock)
        session = sock.session
    reloads = running.admin("/api/v1/status")["reloads"]
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.admin("/api/v1/status")["reloads"] > reloads, "the reload")
    with connect(running, made, session=session) as sock:
        assert sock.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_resumes_its_session_at_every_worker_and_after_the_death_of_one(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options="workers = 2") as running:
        made = context(running, "http/1.1")
        made.maximum_version = version
        session: ssl.SSLSession | None = None

        def resumed() -> bool:
            nonlocal session
            with connect(running, made, session=session) as sock:
                exchange(sock)
                session = sock.session
                return bool(sock.session_reused)

        def workers() -> list[dict]:
            return running.admin("/api/v1/status")["workers"]

        assert not resumed()
        # The kernel chooses the worker: all ten go to the same one once in 512 runs.
        assert all(resumed() for _ in range(10))
        doomed = workers()[0]["pid"]
        os.kill(doomed, signal.SIGKILL)
        wait_until(
            lambda: all(w["stats"] is not None and w["pid"] != doomed for w in workers()),
            "a new worker",
        )
        assert all(resumed() for _ in range(10))


def test_plain_http_on_the_tls_port_is_answered_with_a_sentence(running: RunningEdge) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"https://" in answer


def test_garbage_is_dropped_without_a_word_in_the_log(running: RunningEdge) -> None:
    for first in (b"\0" * 100, b"SSH-2.0-client\r\n", b"\x16\x03\x01\0\x05hello"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
            sock.sendall(first)
            answer = b""
            try:
                while data := sock.recv(65536):
                    answer += data
            except ConnectionResetError:
                pass
        assert len(answer) < 10, "no more than an alert"
    assert '"level": "error"' not in running.log()


def test_a_client_that_closes_its_half_still_gets_the_response(running: RunningEdge) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(running).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:

        def drive(step) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        drive(tls.do_handshake)
        tls.write(b"GET /delay?seconds=0.3 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # close_notify, then the FIN
        sock.sendall(outgoing.read())
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(65536):
            incoming.write(data)
            answer += data
    # OpenSSL gives out no data after its own close_notify; a response is longer than a close.
    assert len(answer) > 200


@contextlib.contextmanager
def half_closing_origin() -> Iterator[tuple[str, list[bytes]]]:
    """Opens a WebSocket, says a word and ends its half; yields its URL and what it heard then."""
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
            assert key is not None
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                b"connection: upgrade\r\nsec-websocket-accept: %b\r\n\r\nthat is all"
                % accept_value(key[1])
            )
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                heard.append(data)
            heard.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard


def test_an_origin_that_ends_its_half_of_a_tunnel_still_hears_the_client(tmp_path: Path) -> None:
    with half_closing_origin() as (url, heard), edge(tmp_path, url) as running:
        with connect(running, context(running, "http/1.1"), suppress_ragged_eofs=False) as sock:
            sock.sendall(
                b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
                b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            said = b""
            while data := sock.recv(65536):
                said += data
            assert said.startswith(b"HTTP/1.1 101 ")
            assert said.endswith(b"\r\n\r\nthat is all")
            sock.sendall(b"not yet")
            sock.unwrap()
        wait_until(lambda: heard[-1:] == [b""], "the end of the client's half")
        assert b"".join(heard) == b"not yet"
        wait_until(lambda: bool(running.access()), "the access log")
        assert running.access()[0]["outcome"] == "complete"
        wait_until(
            lambda: running.admin("/api/v1/connections")["connections"] == [],
            "the end of the connection",
        )


def test_the_certificate_follows_the_server_name_and_a_reload(tmp_path: Path) -> None:
    other = devcerts.ensure(tmp_path / "other", ("other.example",))
    with demo_origin() as origin, edge(tmp_path, origin) as one:
        config = tmp_path / "quicedge.toml"
        text = config.read_text()

        def names(server_name: str) -> set[str]:
            made = ssl.create_default_context(cafile=str(one.certificate.ca))
            made.load_verify_locations(str(other.ca))
            made.check_hostname = False
            raw = socket.create_connection(("127.0.0.1", one.port), timeout=10)
            with made.wrap_socket(raw, server_hostname=server_name) as sock:
                return {name for _, name in sock.getpeercert()["subjectAltName"]}

        assert "localhost" in names("other.example")
        both = text.replace(
            'certificates = [{ cert = "certs/dev.pem", key = "certs/dev.key" }]',
            'certificates = [{ cert = "certs/dev.pem", key = "certs/dev.key" },'
            ' { cert = "other/dev.pem", key = "other/dev.key" }]',
        )
        assert both != text
        config.write_text(both)
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.admin("/api/v1/status")["reloads"] == 1, "the reload")
        assert names("other.example") == {"other.example"}
        assert "localhost" in names("localhost")
        assert "localhost" in names("unknown.example")


def test_a_drain_finishes_what_runs_and_refuses_new_clients_at_once(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options="workers = 2") as one:
        client = http.client.HTTPSConnection("localhost", one.port, context=context(one))
        client.request("GET", "/delay?seconds=1.5")
        wait_until(
            lambda: any(
                worker["stats"]["requests_active"]
                for worker in one.admin("/api/v1/status")["workers"]
            ),
            "the request",
        )
        one.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", one.port), timeout=10).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, "refusal")
        response = client.getresponse()
        assert response.status == 200
        assert response.getheader("connection") == "close"
        response.read()


def test_protocols_choose_what_is_opened_and_offered(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options='protocols = ["http/1.1"]') as one:
        with connect(one, context(one, "h2", "http/1.1")) as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
        listener = one.admin("/api/v1/status")["listeners"][0]
        assert (listener["sockets"], listener["tcp_sockets"]) == (0, 1)
        config = tmp_path / "quicedge.toml"
        config.write_text(config.read_text().replace('["http/1.1"]', '["h3", "http/1.1"]'))
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.admin("/api/v1/status")["reloads"] == 1, "the reload")
        listener = one.admin("/api/v1/status")["listeners"][0]
        assert (listener["sockets"], listener["tcp_sockets"]) == (1, 1)


def test_denied_clients_are_reset_before_tls(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, extra='[limits]\ndeny = ["127.0.0.1"]') as one,
    ):
        with pytest.raises(ConnectionResetError):
            connect(one, context(one))
        raw = socket.create_connection(("::1", one.port), timeout=10)
        with context(one).wrap_socket(raw, server_hostname="localhost") as sock:
            assert exchange(sock).startswith(b"HTTP/1.1 200 ")


def test_plain_http_is_redirected_to_the_port_of_https(tmp_path: Path) -> None:
    port = free_port()
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, options=f'redirect_http = ["127.0.0.1:{port}"]') as one,
    ):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(2):
            client.request("GET", "/a?b", headers={"host": f"localhost:{port}"})
            response = client.getresponse()
            response.read()
            assert response.status == 308
            assert response.getheader("location") == f"https://localhost:{one.port}/a?b"
        assert 'quicedge_redirects_total{status="308",worker="0"} 2.0' in one.metrics()
        wait_until(lambda: len(one.access()) == 2, "the access log")
        logged = one.access()[0]
        assert (logged["status"], logged["outcome"], logged["path"]) == (308, "complete", "/a?b")
        assert logged["client"].startswith("127.0.0.1:")
        assert logged["connection_id"] is None


def test_a_reload_changes_the_protocols_that_new_connections_are_offered(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, options='protocols = ["h3", "h2", "http/1.1"]') as one,
    ):
        with connect(one, context(one, "h2", "http/1.1")) as sock:
            assert sock.selected_alpn_protocol() == "h2"
        config = tmp_path / "quicedge.toml"
        config.write_text(config.read_text().replace('"h3", "h2", "http/1.1"', '"h3", "http/1.1"'))
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.admin("/api/v1/status")["reloads"] == 1, "the reload")
        with connect(one, context(one, "h2", "http/1.1")) as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            assert exchange(sock).startswith(b"HTTP/1.1 200 ")


def test_connections_that_fail_before_a_session_are_counted_by_reason(running: RunningEdge) -> None:
    def failed(reason: str) -> float:
        name = f'quicedge_tcp_handshakes_failed_total{{reason="{reason}",worker="0"}}'
        (line,) = (line for line in running.metrics().splitlines() if line.startswith(name))
        return float(line.split()[-1])

    hellos = {
        "not_tls": b"\0\1garbage",
        "plain_http": b"GET / HTTP/1.1\r\n\r\n",
        "protocol": b"\x16\3\1\0\4nope",
    }
    before = {reason: failed(reason) for reason in hellos}
    for hello in hellos.values():
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
            sock.sendall(hello)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
    for reason, count in before.items():
        wait_until(lambda reason=reason, count=count: failed(reason) == count + 1, reason)


def test_a_drain_lets_an_http_2_connection_finish_its_response(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as one, h2_socket(one) as client:
        stream = client.ask(b"/delay?seconds=2")

        def is_running() -> bool:
            workers = one.admin("/api/v1/status")["workers"]
            return any(worker["stats"]["requests_active"] for worker in workers)

        wait_until(is_running, "the request")
        one.process.send_signal(signal.SIGTERM)
        client.until(lambda: client.goaways, "the notice")
        assert not client.has_ended(stream), "the response came before the notice"
        client.until(lambda: client.has_ended(stream), "the response")
        assert client.status(stream) == b"200"
        client.until_closed()
        assert client.goaways == [0, 0]
        last = [int.from_bytes(f.payload[:4], "big") for f in client.frames if f.kind == 7]
        assert last == [(1 << 31) - 1, stream], "first a notice, then what is still served"


def test_without_memory_connections_are_shed_and_later_ones_served_again(tmp_path: Path) -> None:
    def reload(old: str, new: str) -> None:
        reloads = one.admin("/api/v1/status")["reloads"]
        config = tmp_path / "quicedge.toml"
        config.write_text(config.read_text().replace(old, new))
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.admin("/api/v1/status")["reloads"] > reloads, "the reload")

    large, small = 'memory = "8GB"', 'memory = "1MB"'
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, extra=f"[limits]\n{large}") as one,
        h2_socket(one) as h2,
    ):
        h1 = http.client.HTTPSConnection("localhost", one.port, context=context(one), timeout=20)
        h1.request("GET", "/echo")
        assert h1.getresponse().read()
        stream = h2.ask(b"/echo")
        h2.until(lambda: h2.has_ended(stream), "the response")
        reload(large, small)
        h2.until_closed()
        assert h2.goaways == [H2ErrorCode.ENHANCE_YOUR_CALM]
        assert h1.sock.recv(1) == b"", "a connection of HTTP/1.1 is closed"
        (worker,) = one.admin("/api/v1/status")["workers"]
        assert worker["stats"]["requests_refused"]["shed"] == 2
        with pytest.raises(OSError):
            connect(one, context(one))
        reload(small, large)

        def is_served() -> bool:
            try:
                with connect(one, context(one)) as sock:
                    return exchange(sock).startswith(b"HTTP/1.1 200 ")
            except OSError:
                return False

        wait_until(is_served, "service")
