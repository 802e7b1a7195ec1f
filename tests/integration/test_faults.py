"""Faults around the edge: a clear answer for the client, a line for the operator, nothing kept."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quicedge.cli.client import Answer, Client, FetchError
from tests.support.edge import RunningEdge, edge
from tests.support.faults import Faults, descriptors, faults, holdings, origin_connections
from tests.support.origin import demo_origin
from tests.support.origins import eventually
from tests.support.peers import free_port, wait_until

TIMEOUTS = """
connect_timeout = "1s"
first_byte_timeout = "500ms"
idle_timeout = "500ms"
keepalive_timeout = "300ms"
"""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"


class Origin:
    """An HTTP/1.1 origin that fails as the path says."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, name: bytes = b"ok") -> None:
        self._name = name
        self._listener = socket.create_server((host, port))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
                if b"\r\n\r\n" in received:
                    received = b""
                    if not self._answer(connection, data.split()[1]):
                        return
        except OSError:
            pass
        connection.close()

    def _answer(self, connection: socket.socket, path: bytes) -> bool:
        match path:
            case b"/hang":
                pass
            case b"/hang-within":
                connection.sendall(HEAD + b"x" * 1000)
            case b"/reset":
                self._reset(connection)
                return False
            case b"/reset-within":
                connection.sendall(HEAD + b"x" * 1000)
                time.sleep(0.05)
                self._reset(connection)
                return False
            case _:
                body = self._name
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )
        return True

    def _reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@contextmanager
def faulty_origin(host: str = "127.0.0.1", port: int = 0, name: bytes = b"ok") -> Iterator[Origin]:
    origin = Origin(host, port, name)
    try:
        yield origin
    finally:
        origin.close()


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with faults(tmp_path_factory.mktemp("switches")) as made:
        yield made


@pytest.fixture(scope="module")
def running(switches: Faults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with (
        faulty_origin() as origin,
        edge(
            tmp_path_factory.mktemp("edge"),
            f"http://127.0.0.1:{origin.port}",
            upstream_extra=TIMEOUTS,
        ) as started,
    ):
        yield started


async def connect(running: RunningEdge) -> Client:
    return await Client.connect("localhost", running.port, ca_file=str(running.certificate.ca))


async def get(running: RunningEdge, path: str) -> Answer:
    client = await connect(running)
    try:
        return await client.fetch("GET", "localhost", path, timeout=20)
    finally:
        await client.close()


def at_base_line(running: RunningEdge, switches: Faults, before: dict[str, int]) -> None:
    """Asserts that all that was taken is given back; a closed connection drains for a while."""

    def is_back() -> bool:
        return all(held <= before[name] for name, held in holdings(running, switches).items())

    wait_until(is_back, f"{before}, but: {holdings(running, switches)}")


@pytest.fixture
def before(running: RunningEdge, switches: Faults) -> dict[str, int]:
    """What a quiet edge holds that has served a request."""
    asyncio.run(get(running, "/ok"))

    def is_quiet() -> bool:
        held = holdings(running, switches)
        return held["connections"] == held["requests"] == 0

    wait_until(is_quiet, "quiet")
    wait_until(lambda: origin_connections(running) == 0, "the keep-alive timeout")
    held = holdings(running, switches)
    assert held["tasks"] > 0
    return held


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/hang", 504, "origin_first_byte_timeout"),
        ("/hang-within", None, "origin_idle_timeout"),
        ("/reset", 502, "origin_reset"),
        ("/reset-within", None, "origin_reset"),
    ],
)
def test_an_origin_that_hangs_or_resets(
    running: RunningEdge,
    switches: Faults,
    before: dict[str, int],
    path: str,
    status: int | None,
    outcome: str,
) -> None:
    async def many() -> list[Answer | BaseException]:
        return await asyncio.gather(*(get(running, path) for _ in range(5)), return_exceptions=True)

    for result in asyncio.run(many()):
        if status is None:
            assert isinstance(result, FetchError)
            assert "reset" in str(result)
        else:
            assert isinstance(result, Answer)
            assert result.status == status

    def records() -> list[str]:
        return [record["outcome"] for record in running.access() if record["path"] == path]

    wait_until(lambda: len(records()) == 5, "the access log")
    assert set(records()) == {outcome}
    at_base_line(running, switches, before)


KILLABLE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 1000000\\r\\n\\r\\nhalf")
"""


async def test_an_origin_killed_within_its_response(tmp_path: Path) -> None:
    port = free_port()
    origin = subprocess.Popen([sys.executable, "-c", KILLABLE, str(port)])  # noqa: ASYNC220
    try:
        with edge(tmp_path, f"http://127.0.0.1:{port}") as running:
            wait_until(lambda: not _refuses(port), "the origin")
            client = await connect(running)
            begun = asyncio.Event()
            task = asyncio.create_task(
                client.fetch("GET", "localhost", "/", on_body=lambda data: begun.set())
            )
            await asyncio.wait_for(begun.wait(), 10)
            origin.kill()
            with pytest.raises(FetchError, match="reset"):
                await asyncio.wait_for(task, 10)
            wait_until(lambda: _refuses(port), "the origin's end")
            # The connection goes on; the origin is gone, and the client is told so.
            assert (await client.fetch("GET", "localhost", "/")).status == 502
            await client.close()
            wait_until(lambda: len(running.access()) == 2, "the access log")
            outcomes = [record["outcome"] for record in running.access()]
            assert outcomes == ["origin_reset", "origin_connect"]
    finally:
        origin.kill()
        origin.wait()


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


HOSTS_OF_ITS_OWN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_BIND = 0x20000, 0x4000, 1 << 18, 4096
for failed in (libc.unshare(CLONE_NEWNS),
               libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
               libc.mount(os.environb[b"HOSTS"], b"/etc/hosts", None, MS_BIND, None)):
    if failed:
        sys.exit(os.strerror(ctypes.get_errno()))
from quicedge.cli import main
main()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process its own /etc/hosts")
async def test_a_name_is_resolved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 origin.test\n")
    monkeypatch.setenv("HOSTS", str(hosts))
    port = free_port()
    with (
        faulty_origin("127.0.0.2", port, b"new"),
        edge(
            tmp_path, f"http://origin.test:{port}", program=("-c", HOSTS_OF_ITS_OWN),
            upstream_extra=TIMEOUTS,
        ) as running,
    ):  # fmt: skip
        body = bytearray()
        with faulty_origin("127.0.0.1", port, b"old"):
            client = await connect(running)
            await client.fetch("GET", "localhost", "/", on_body=body.extend)
            # Only its content may change: the mount holds on to the file.
            with hosts.open("w") as file:
                file.write("127.0.0.1 localhost\n127.0.0.2 origin.test\n")
        await client.fetch("GET", "localhost", "/", on_body=body.extend)
        await client.close()
        assert bytes(body) == b"oldnew"


async def test_a_full_disk_costs_lines_alone(tmp_path: Path) -> None:
    (tmp_path / "access.log").symlink_to("/dev/full")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        for _ in range(3):
            assert (await get(running, "/echo")).status == 200

        def dropped() -> bool:
            (worker,) = running.admin("/api/v1/status")["workers"]
            return worker["stats"]["log_lines_dropped"] == 3

        wait_until(dropped, "lines that are counted")
        wait_until(lambda: "access_log_lines" in running.log(), "a line that says so")
        (tmp_path / "access.log").unlink()  # the operator makes room, and rotates
        running.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "logs reopened" in running.log(), "the new log")
        assert (await get(running, "/echo")).status == 200
        wait_until(lambda: len(running.access()) == 1, "the access log")


def test_out_of_descriptors(running: RunningEdge, switches: Faults, before: dict[str, int]) -> None:
    pid = running.worker_pid()
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The lowest free number is what a new descriptor gets.
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(4096) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limit[1]))
    try:
        assert asyncio.run(get(running, "/starved")).status == 502
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    assert asyncio.run(get(running, "/ok")).status == 200

    def records() -> list[str]:
        return [record["outcome"] for record in running.access() if record["path"] == "/starved"]

    wait_until(lambda: bool(records()), "the access log")
    assert records() == ["origin_connect"]
    at_base_line(running, switches, before)


@pytest.mark.parametrize("jump", [86400, -86400])
async def test_a_jump_of_the_clock_moves_nothing(
    running: RunningEdge, switches: Faults, jump: int
) -> None:
    client = await connect(running)
    assert (await client.fetch("GET", "localhost", "/ok")).status == 200
    with switches.clock_off_by(jump):
        # Those who live go on, others come, deadlines neither pass nor stay away.
        assert (await client.fetch("GET", "localhost", "/ok")).status == 200
        assert (await get(running, "/ok")).status == 200
        assert (await get(running, "/hang")).status == 504
        await asyncio.sleep(1.2)  # the edge's own ticks see the new time
        assert (await client.fetch("GET", "localhost", "/ok")).status == 200
    assert (await client.fetch("GET", "localhost", "/ok")).status == 200
    await client.close()


async def test_clients_of_a_killed_worker_are_reset_and_it_is_replaced(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        client = await connect(running)
        assert (await client.fetch("GET", "localhost", "/echo")).status == 200
        old = running.worker_pid()
        held = descriptors(running.process.pid)
        os.kill(old, signal.SIGKILL)
        started = time.monotonic()
        # Whoever takes over cannot go on with the connection, but knows its reset token.
        with pytest.raises(FetchError, match="stateless reset"):
            await client.fetch("GET", "localhost", "/echo", timeout=20)
        assert time.monotonic() - started < 10
        await client.close()
        assert (await get(running, "/echo")).status == 200
        assert running.worker_pid() != old
        assert "worker died; replacing it" in running.log()
        assert "SIGKILL" in running.log()
        wait_until(lambda: descriptors(running.process.pid) <= held, "descriptors given back")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOBUFS, errno.EMSGSIZE])
async def test_sends_that_fail_for_a_while(
    running: RunningEdge, switches: Faults, before: dict[str, int], number: int
) -> None:
    client = await connect(running)
    assert (await client.fetch("GET", "localhost", "/ok")).status == 200
    said = running.log().count("local loss")
    failed = switches.failed_sends
    with switches.sends_fail(number):
        task = asyncio.create_task(client.fetch("GET", "localhost", "/ok", timeout=20))
        # The answer, its repetition, and a probe after it.
        await eventually(lambda: switches.failed_sends >= failed + 3)
        assert not task.done()
    assert (await task).status == 200  # nothing is lost, only late
    await client.close()
    if number != errno.ENOBUFS:  # which is waited for, as a full queue is
        wait_until(lambda: running.log().count("local loss") > said, "a line that says so")
    at_base_line(running, switches, before)
