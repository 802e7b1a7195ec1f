"""Upgrades and crashes of the supervisor: what clients notice of them, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_generations import ask, banks, change, reload, tls_client
from tests.integration.test_worker_ends import reset_within, silent_origin, waiting_client
from tests.support.download_client import download_client
from tests.support.edge import REPOSITORY, RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

OPTIONS = 'workers = 2\nupgrade_drain = "60s"\npid_file = "edge.pid"'


def quicedge(running: RunningEdge, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quicedge", command, "--config",
         str(running.directory / "quicedge.toml")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def supervisor(running: RunningEdge) -> int:
    return int(running.admin("/api/v1/status")["pid"])


@contextlib.contextmanager
def upgradable(
    directory: Path, origin: str, options: str = OPTIONS, drain_timeout: str = "5s"
) -> Iterator[RunningEdge]:
    """An edge whose process may be another one in the end."""
    with edge(
        directory, origin, options=options, drain_timeout=drain_timeout, ends_itself=True
    ) as running:
        try:
            yield running
        except BaseException:
            quicedge(running, "stop")
            raise
        assert quicedge(running, "stop").returncode == 0
    left = [path.name for path in directory.iterdir() if path.name.startswith("control.sock")]
    assert left == []


def test_an_upgrade_keeps_connections_and_accepts_new_ones(tmp_path: Path) -> None:
    # New requests on old connections are served for the drain timeout.
    with demo_origin() as origin, upgradable(tmp_path, origin, drain_timeout="60s") as running:

        async def live() -> None:
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(download_client(running.port)) for _ in range(4)
                ]
                for bank in (1, 0):
                    before = await asyncio.to_thread(supervisor, running)
                    busy = [client.request(1_000_000) for client in clients]
                    done = await asyncio.to_thread(quicedge, running, "upgrade")
                    assert done.returncode == 0, done.stderr
                    after = await asyncio.to_thread(supervisor, running)
                    assert done.stdout == f"upgraded: process {after} serves\n"
                    assert before != after
                    assert int((tmp_path / "edge.pid").read_text()) == after
                    assert (await asyncio.to_thread(banks, running))[bank] == 2
                    late = await stack.enter_async_context(download_client(running.port))
                    await asyncio.gather(*busy, late.request())
                    # Old connections are served as before, and so are their statistics.
                    await asyncio.gather(*(client.request() for client in clients))
                    for client in clients:
                        client.close()
                    clients = [late]
                    await asyncio.to_thread(
                        wait_until, lambda bank=bank: list(banks(running)) == [bank], "end", 60
                    )

        asyncio.run(live())
        assert running.process.wait(10) == 0
        assert "Traceback" not in running.log()


def test_no_tcp_connection_is_refused_or_cut_by_an_upgrade(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        upgradable(tmp_path, origin) as running,
        tls_client(running.port) as kept,
    ):
        assert b"200 OK" in ask(kept)
        upgrading = subprocess.Popen(
            [sys.executable, "-m", "quicedge", "upgrade", "--config",
             str(tmp_path / "quicedge.toml")], cwd=REPOSITORY,
        )  # fmt: skip
        asked = 0
        while upgrading.poll() is None or asked < 20:
            with tls_client(running.port) as fresh:
                assert b"200 OK" in ask(fresh)
            asked += 1
        assert upgrading.returncode == 0
        last = ask(kept)
        assert b"200 OK" in last
        assert b"connection: close" in last.lower()


def test_a_signal_upgrades_too(tmp_path: Path) -> None:
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:
        before = supervisor(running)
        running.process.send_signal(signal.SIGUSR2)
        assert running.process.wait(60) == 0
        wait_until(lambda: supervisor(running) != before, "the new program", 20)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("workers = 2", "workers = two", "Invalid value"),
        ("workers = 2", 'workers = 2\nstate_directory = "/proc/none/x"', "state_directory"),
        ('servers = ["', 'tls_ca = "missing"\nservers = ["https://localhost", "', "missing"),
        ("[admin]\n", '[admin]\ntoken_file = "missing"\n', "missing: No such file"),
        ("listen = [", 'listen = ["192.0.2.1:4433", ', "192.0.2.1:4433: Cannot assign"),
        # Connections of the old workers would be lost.
        ("[[routes]]", '[fleet]\nserver_id = "0001"\n[[routes]]', "fleet: server_id, nonce_length"),
    ],
)
def test_a_new_program_that_does_not_come_up_leaves_the_old_one_serving(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options=OPTIONS) as running:
        pids = [worker["pid"] for worker in running.admin("/api/v1/status")["workers"]]
        right = (tmp_path / "quicedge.toml").read_text()
        change(running, old, new)
        done = quicedge(running, "upgrade")
        assert done.returncode == 1
        assert words in done.stderr
        assert supervisor(running) == running.process.pid
        (tmp_path / "quicedge.toml").write_text(right)
        assert reload(running).returncode == 0
        status = running.admin("/api/v1/status")
        assert [worker["pid"] for worker in status["workers"]] == pids
        for _ in range(4):
            with tls_client(running.port) as tls:
                assert b"200 OK" in ask(tls)
        assert running.get("/").returncode == 0


def test_keys_of_connection_ids_are_not_exchanged_under_their_rotation(tmp_path: Path) -> None:
    """Other hosts would take the connection IDs that there are for those of others."""
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"3 {'ab' * 16}\n")
    fleet = f"""{OPTIONS}
[fleet]
server_id = "0001"
connection_id_keys = "{keys}"
"""
    with demo_origin() as origin, upgradable(tmp_path, origin, fleet) as running:
        pids = {worker["pid"] for worker in running.admin("/api/v1/status")["workers"]}
        keys.write_text(f"3 {'cd' * 16}\n")
        done = quicedge(running, "upgrade")
        assert done.returncode == 1
        assert "fleet.connection_id_keys: config rotation 3 has another key already" in done.stderr
        assert "rotation that is free" in done.stderr
        assert supervisor(running) == running.process.pid
        assert running.get("/").returncode == 0
        keys.write_text(f"4 {'cd' * 16}\n3 {'ab' * 16}\n")
        assert quicedge(running, "upgrade").returncode == 0
        assert running.get("/").returncode == 0
        wait_until(lambda: len(banks(running)) == 1, "the end of the workers before", 60)
        # A supervisor that comes after one that died ends the workers, as their clients are lost.
        pids = {worker["pid"] for worker in running.admin("/api/v1/status")["workers"]}
        os.kill(supervisor(running), signal.SIGKILL)
        wait_until(lambda: not running.is_listening(), "the end of the supervisor", 20)
        keys.write_text(f"4 {'ef' * 16}\n")
        running.start()
        status = running.admin("/api/v1/status")
        assert pids.isdisjoint(worker["pid"] for worker in status["workers"])
        assert "config rotation 4 has another key already" in running.log()


def begin_upgrade(running: RunningEdge) -> subprocess.Popen[str]:
    """An upgrade whose new program has just been started."""
    upgrade = subprocess.Popen(
        [sys.executable, "-m", "quicedge", "upgrade", "--config",
         str(running.directory / "quicedge.toml")],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: "upgrade started" in running.log(), "the start of the upgrade", 60)
    return upgrade


def test_a_stop_during_an_upgrade_is_obeyed(tmp_path: Path) -> None:
    with (
        demo_origin() as origin,
        edge(tmp_path, origin, options=OPTIONS, ends_itself=True) as running,
    ):
        upgrade = begin_upgrade(running)
        running.process.send_signal(signal.SIGTERM)
        _, errors = upgrade.communicate(timeout=60)
        assert upgrade.returncode == 1
        assert "the edge is stopping" in errors
        assert running.process.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            running.admin("/readyz")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("control.sock")]


def test_a_reload_that_waits_for_an_upgrade_is_refused_after_it(tmp_path: Path) -> None:
    """The new program may have read the configuration before it was changed."""
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:
        upgrade = begin_upgrade(running)
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(str(tmp_path / "control.sock"))
            control.sendall(b'{"command":"reload"}\n')
            answer = json.loads(control.makefile().readline())
        assert upgrade.wait(60) == 0
        assert f"process {supervisor(running)} has taken over" in answer["error"]
        assert quicedge(running, "reload").returncode == 0


def test_a_second_upgrade_is_refused_while_the_first_still_drains(tmp_path: Path) -> None:
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:
        with tls_client(running.port) as tls:
            tls.sendall(b"GET /download?size=50MB HTTP/1.1\r\nhost: localhost\r\n\r\n")
            tls.recv(1000)
            assert quicedge(running, "upgrade").returncode == 0
            done = quicedge(running, "upgrade")
            assert done.returncode == 1
            assert "still finish requests (" in done.stderr
            assert "at most upgrade_drain" in done.stderr
        wait_until(lambda: len(banks(running)) == 1, "the end of the first", 60)
        assert quicedge(running, "upgrade").returncode == 0


def test_a_supervisor_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:

        async def live() -> None:
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(download_client(running.port))
                await client.request()
                pids = sorted(w["pid"] for w in running.admin("/api/v1/status")["workers"])
                busy = client.request(1_000_000)
                running.process.kill()
                running.process.wait()
                await busy
                # Nobody supervises, and everybody is served.
                late = await stack.enter_async_context(download_client(running.port))
                await late.request()
                with tls_client(running.port) as tls:
                    assert b"200 OK" in await asyncio.to_thread(ask, tls)
                await asyncio.to_thread(running.start)
                found = running.admin("/api/v1/status")["workers"]
                assert sorted(worker["pid"] for worker in found) == pids, "they are adopted"
                # Nobody was forked: the fork server has ended, and has not stayed as a zombie.
                pid = running.process.pid
                children = Path(f"/proc/{pid}/task/{pid}/children")
                await asyncio.to_thread(
                    wait_until,
                    lambda: not children.read_text().split(),
                    "the end of its fork server",
                )
                await asyncio.gather(client.request(), late.request())
                # They obey: a reload reaches them.
                change(running, 'drain_timeout = "5s"', 'drain_timeout = "4s"')
                assert (await asyncio.to_thread(reload, running)).returncode == 0

        asyncio.run(live())
        assert "Traceback" not in running.log()


def test_an_adopted_worker_that_dies_is_replaced_and_its_clients_reset(tmp_path: Path) -> None:
    with silent_origin() as origin, upgradable(tmp_path, origin) as running:
        visitor = waiting_client(running)
        identity = visitor.quic.original_destination_connection_id.hex()
        doomed = running.admin(f"/api/v1/connections/{identity}")["worker"]
        running.process.kill()
        running.process.wait()
        running.start()
        pids = {w["slot"]: w["pid"] for w in running.admin("/api/v1/status")["workers"]}
        os.kill(pids[doomed], signal.SIGKILL)
        # A second is what is promised; the machine may be busy.
        assert reset_within(visitor, 3.0) is not None

        def replaced() -> bool:
            found = {w["slot"]: w["pid"] for w in running.admin("/api/v1/status")["workers"]}
            return found[doomed] not in (None, pids[doomed]) and running.is_ready()

        wait_until(replaced, "another worker", 30)
        # It can be replaced by the next generation as any other.
        change(running, "workers = 2", "workers = 3")
        assert reload(running).returncode == 0
        visitor.close()


def test_after_a_crash_the_configuration_of_now_is_used(tmp_path: Path) -> None:
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:
        running.process.kill()
        running.process.wait()
        change(running, "workers = 2", "workers = 1")
        running.start()
        wait_until(lambda: banks(running) == {1: 1}, "one worker of the next generation", 60)
        with tls_client(running.port) as tls:
            assert b"200 OK" in ask(tls)


def test_systemd_follows_the_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        demo_origin() as origin,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with upgradable(tmp_path, origin) as running:
            assert b"READY=1" in systemd.recv(1000)
            assert quicedge(running, "upgrade").returncode == 0
            assert systemd.recv(1000) == b"MAINPID=%d" % supervisor(running)
            assert b"READY=1" in systemd.recv(1000)
        assert systemd.recv(1000) == b"STOPPING=1"


def test_workers_with_other_connection_ids_end_with_their_supervisor(tmp_path: Path) -> None:
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:
        pids = {w["pid"] for w in running.admin("/api/v1/status")["workers"]}
        running.process.kill()
        running.process.wait()
        change(running, "[[routes]]", '[fleet]\nserver_id = "0001"\n[[routes]]')
        running.start()
        status = running.admin("/api/v1/status")
        assert pids.isdisjoint(worker["pid"] for worker in status["workers"])
        assert all(listener["steering"] for listener in status["listeners"])
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                assert "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        for _ in range(4):
            assert running.get("/").returncode == 0


@pytest.mark.parametrize("job", ["restart", "stop"])
def test_a_restart_by_systemd_leaves_the_workers_to_the_next_supervisor(
    tmp_path: Path, job: str
) -> None:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\necho '17 quicedge.service {job} running'\n")
    systemctl.chmod(0o755)
    with demo_origin() as origin, upgradable(tmp_path, origin) as running:

        async def live() -> None:
            async with download_client(running.port) as client:
                await client.request()
                pids = {w["pid"] for w in running.admin("/api/v1/status")["workers"]}
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-m", "quicedge", "stop", "--systemd", "quicedge.service",
                     "--config", str(tmp_path / "quicedge.toml")],
                    cwd=REPOSITORY, check=True, timeout=60,
                    env={**os.environ, "PATH": f"{systemctl.parent}:{os.environ['PATH']}"},
                )  # fmt: skip
                assert done.returncode == 0
                assert running.process.wait(10) == 0
                if job == "restart":
                    await client.request()
                await asyncio.to_thread(running.start)
                if job == "restart":
                    await client.request()
                client.close()

                def replaced() -> bool:
                    found = running.admin("/api/v1/status")["workers"]
                    return len(found) == 2 and pids.isdisjoint(w["pid"] for w in found)

                await asyncio.to_thread(wait_until, replaced, "fresh workers", 60)

        asyncio.run(live())


def test_a_second_edge_does_not_take_workers_that_have_a_supervisor(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin, options=OPTIONS) as running:
        pids = [worker["pid"] for worker in running.admin("/api/v1/status")["workers"]]
        second = subprocess.run(
            [sys.executable, "-m", "quicedge", "serve", "--config",
             str(tmp_path / "quicedge.toml")],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        found = running.admin("/api/v1/status")["workers"]
        assert [worker["pid"] for worker in found] == pids
