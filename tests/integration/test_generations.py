"""Reloads that replace workers: what clients notice of it, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.packet import QuicErrorCode

from tests.integration.test_worker_ends import reset_within, silent_origin, waiting_client
from tests.support.download_client import download_client
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import free_edge_port, wait_until
from tests.support.visitor import Visitor


def reload(running: RunningEdge, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quicedge", "reload", *options,
         "--config", str(running.directory / "quicedge.toml")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def change(running: RunningEdge, old: str, new: str) -> None:
    path = running.directory / "quicedge.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def banks(running: RunningEdge) -> dict[int, int]:
    """Workers of each bank."""
    found: dict[int, int] = {}
    for worker in running.admin("/api/v1/status")["workers"]:
        found[worker["slot"] // 64] = found.get(worker["slot"] // 64, 0) + 1
    return found


@contextlib.contextmanager
def tls_client(port: int) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost") as tls,
    ):
        yield tls


def ask(tls: ssl.SSLSocket, path: str = "/") -> bytes:
    tls.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = tls.recv(65536)
        if not piece:
            break
        answer += piece
    return answer


def test_a_reload_changes_the_number_of_workers_under_open_connections(tmp_path: Path) -> None:
    options = 'workers = 2\nupgrade_drain = "60s"'
    with (
        demo_origin() as origin,
        # New requests on old connections are served for the drain timeout.
        edge(tmp_path, origin, options=options, drain_timeout="60s") as running,
    ):

        async def live() -> None:
            """Old connections go on over three generations of different sizes, new ones too."""
            async with contextlib.AsyncExitStack() as stack:
                first = await stack.enter_async_context(download_client(running.port))
                await first.request()
                for before, after, bank in ((2, 3, 1), (3, 1, 0)):
                    change(running, f"workers = {before}", f"workers = {after}")
                    # Both directions of a transfer while workers are replaced.
                    busy = asyncio.ensure_future(first.request(3_000_000))
                    done = await asyncio.to_thread(reload, running)
                    assert done.returncode == 0, done.stderr
                    assert done.stdout == f"reloaded\nworkers: {before} -> {after}\n"
                    late = await stack.enter_async_context(download_client(running.port))
                    await late.request()
                    await busy
                    await first.request()
                    found = await asyncio.to_thread(banks, running)
                    assert found[bank] == after
                    first.close()
                    await asyncio.to_thread(
                        wait_until, lambda bank=bank: list(banks(running)) == [bank], "the end", 40
                    )
                    first = late

        asyncio.run(live())


def test_no_tcp_connection_is_refused_or_cut_while_workers_are_replaced(tmp_path: Path) -> None:
    options = 'workers = 2\nupgrade_drain = "60s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:
        asked = 0
        with tls_client(running.port) as kept, contextlib.ExitStack() as silent:
            assert b"200 OK" in ask(kept)
            # Accepted by the kernel alone: nobody has them until they speak.
            waiting = [
                silent.enter_context(socket.create_connection(("127.0.0.1", running.port)))
                for _ in range(8)
            ]
            change(running, "workers = 2", "workers = 1")
            reloading = subprocess.Popen(
                [sys.executable, "-m", "quicedge", "reload", "--config",
                 str(tmp_path / "quicedge.toml")], cwd=REPOSITORY,
            )  # fmt: skip
            while reloading.poll() is None or asked < 20:
                with tls_client(running.port) as fresh:
                    assert b"200 OK" in ask(fresh)
                asked += 1
            assert reloading.returncode == 0
            assert banks(running)[1] == 1
            for tcp in waiting:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                tcp.settimeout(30)
                with context.wrap_socket(tcp, server_hostname="localhost") as tls:
                    assert b"200 OK" in ask(tls)
            # Its worker asks it to leave, with a response.
            last = ask(kept)
            assert b"200 OK" in last
            assert b"connection: close" in last.lower()


def test_addresses_come_and_go_by_reload(tmp_path: Path) -> None:
    options = 'upgrade_drain = "1s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:
        other = free_edge_port()
        change(running, "listen = [", f'listen = ["127.0.0.1:{other}", ')
        assert reload(running).returncode == 0
        for port in (other, running.port):
            with tls_client(port) as tls:
                assert b"200 OK" in ask(tls)

            async def fetch(port: int = port) -> None:
                async with download_client(port) as client:
                    await client.request()

            asyncio.run(fetch())
        wait_until(lambda: len(banks(running)) == 1, "the end of the first generation", 60)
        change(running, f'"127.0.0.1:{other}", ', "")
        assert reload(running).returncode == 0
        wait_until(lambda: len(banks(running)) == 1, "the end of the second generation", 60)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other), timeout=5)
        with tls_client(running.port) as tls:
            assert b"200 OK" in ask(tls)


def test_newcomers_where_nobody_listens_any_more_are_refused_at_once(tmp_path: Path) -> None:
    """They go elsewhere at once; those at addresses that stay are served, by the successors."""
    left = free_edge_port()
    options = 'workers = 2\nupgrade_drain = "60s"'
    with (
        silent_origin() as origin,
        edge(tmp_path, origin, options=options, listen=(left,)) as running,
    ):
        kept = waiting_client(running)
        change(running, f', "127.0.0.1:{left}"', "")
        assert reload(running).returncode == 0
        for _ in range(6):
            late = Visitor(left)
            late.run(lambda v, ended: v.quic._close_event is not None, limit=5.0)
            assert late.quic._close_event is not None
            assert late.quic._close_event.error_code == QuicErrorCode.CONNECTION_REFUSED
        newcomer = waiting_client(running)
        assert newcomer.quic._close_event is None
        assert kept.quic._close_event is None
        assert len(banks(running)) == 2, "the workers before still drain"
        for client in (kept, newcomer):
            client.close()


def test_a_reload_moves_the_admin_api(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        moved = tmp_path / "admin.sock"
        change(running, f'listen = "127.0.0.1:{running.admin_port}"', f'listen = "unix:{moved}"')
        pid = running.worker_pid()
        assert reload(running).returncode == 0
        wait_until(lambda: not running.is_listening(), "the old address to be closed", 10)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(moved))
        client.sendall(b"GET /api/v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        client.close()
        status = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert status["workers"][0]["pid"] == pid, "workers have nothing to do with it"
        change(running, f'listen = "unix:{moved}"', f'listen = "127.0.0.1:{running.admin_port}"')
        assert reload(running).returncode == 0
        assert running.worker_pid() == pid
        wait_until(lambda: not moved.exists(), "the old socket to be removed", 10)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("workers = 1", "workers = 2\nbroken", "Expected '=' after a key"),
        ("listen = [", 'listen = ["192.0.2.1:4433", ', "192.0.2.1:4433: Cannot assign"),
        ('servers = ["', 'tls_ca = "missing"\nservers = ["https://localhost", "', "missing"),
    ],
)
def test_what_cannot_start_leaves_everything_as_it_was(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options="workers = 1") as running:
        pid = running.worker_pid()
        change(running, "workers = 1", "workers = 2") if old != "workers = 1" else None
        change(running, old, new)
        done = reload(running)
        assert done.returncode == 1
        assert words in done.stderr
        assert [worker["pid"] for worker in running.admin("/api/v1/status")["workers"]] == [pid]
        for _ in range(4):
            with tls_client(running.port) as tls:
                assert b"200 OK" in ask(tls)
        assert running.get("/").returncode == 0


def test_a_second_change_of_workers_is_refused_while_the_first_still_drains(
    tmp_path: Path,
) -> None:
    options = 'workers = 1\nupgrade_drain = "60s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:
        with tls_client(running.port) as tls:
            tls.sendall(b"GET /download?size=50MB HTTP/1.1\r\nhost: localhost\r\n\r\n")
            tls.recv(1000)
            change(running, "workers = 1", "workers = 2")
            assert reload(running).returncode == 0
            change(running, "workers = 2", "workers = 3")
            done = reload(running)
            assert done.returncode == 1
            assert "those of the change before still finish requests (1 left" in done.stderr
            # Whatever needs no new workers is changed all the same.
            change(running, "workers = 3", "workers = 2")
            change(running, 'drain_timeout = "5s"', 'drain_timeout = "4s"')
            assert reload(running).returncode == 0
        wait_until(lambda: len(banks(running)) == 1, "the end of the first generation", 60)


def test_clients_of_a_worker_that_dies_while_it_drains_are_reset(tmp_path: Path) -> None:
    options = 'workers = 1\nupgrade_drain = "60s"'
    with silent_origin() as origin, edge(tmp_path, origin, options=options) as running:
        waiting, talking = waiting_client(running), waiting_client(running)
        doomed = running.worker_pid()
        change(running, "workers = 1", "workers = 2")
        assert reload(running).returncode == 0
        os.kill(doomed, signal.SIGKILL)
        # A second is what is promised; the machine may be busy.
        assert reset_within(waiting, 3.0) is not None
        # The successors answer for it to those who say something later.
        wait_until(lambda: len(banks(running)) == 1, "the end of the generation", 20)
        while reset_within(talking, 0.5) is not None:
            pass
        talking.quic.send_ping(1)
        talking.send(talking.flight())
        assert reset_within(talking, 5.0) is not None


def test_status_shows_both_generations(tmp_path: Path) -> None:
    options = 'workers = 1\nupgrade_drain = "60s"'
    with demo_origin() as origin, edge(tmp_path, origin, options=options) as running:

        async def live() -> None:
            async with download_client(running.port) as client:
                await client.request()
                change(running, "workers = 1", "workers = 2")
                assert (await asyncio.to_thread(reload, running)).returncode == 0
                found: Any = await asyncio.to_thread(running.admin, "/api/v1/status")
                states = {worker["slot"]: worker["state"] for worker in found["workers"]}
                assert states == {64: "ready", 65: "ready", 0: "draining"}
                page = await asyncio.to_thread(running.admin, "/api/v1/connections")
                assert [row["worker"] for row in page["connections"]] == [0]
                text = await asyncio.to_thread(running.metrics)
                assert 'quicedge_connections_open{worker="0"} 1.0' in text

        asyncio.run(live())


def test_fifty_reloads_half_of_them_broken_disturb_no_client(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, options="workers = 2") as running,
        ThreadPoolExecutor() as pool,
        tls_client(running.port) as kept,
    ):
        pids = [worker["pid"] for worker in running.admin("/api/v1/status")["workers"]]
        path = tmp_path / "quicedge.toml"
        right = path.read_text()

        def traffic() -> int:
            asked = 0
            while not stopped.is_set():
                with tls_client(running.port) as fresh:
                    assert b"200 OK" in ask(fresh)
                assert b"200 OK" in ask(kept)
                asked += 1
            return asked

        stopped = threading.Event()
        clients = pool.submit(traffic)
        outcomes = []
        for turn in range(25):
            path.write_text(right.replace('"5s"', f'"{turn + 1}s"'))
            outcomes.append(command(running, "reload")["error"])
            path.write_text(right.replace("servers = [", "serverz = ["))
            outcomes.append(command(running, "reload")["error"])
        stopped.set()
        assert clients.result(60) > 0
        assert outcomes[::2] == [None] * 25
        assert all("serverz: unknown key" in error for error in outcomes[1::2])
        status = running.admin("/api/v1/status")
        assert [worker["pid"] for worker in status["workers"]] == pids
        assert status["reloads"] == 25
        assert running.admin("/api/v1/config")["drain_timeout"] == 25.0


def command(running: RunningEdge, name: str) -> Any:
    """The reply to a command, without a process of its own."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(str(running.directory / "control.sock"))
        control.sendall(json.dumps({"command": name}).encode() + b"\n")
        with control.makefile("rb") as answer:
            return json.loads(answer.readline())
