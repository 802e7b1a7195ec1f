"""What an operator does to a running edge: reload, status and stop, by command and by the API."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from quicedge import native
from tests.support.supervised import ROOT, Supervised, wait_for, write_config

TOKEN = "0123456789abcdef-token"


@contextlib.contextmanager
def supervised(folder: Path, **config: Any) -> Iterator[Supervised]:
    path = folder / "quicedge.toml"
    running = Supervised(folder, config, path)
    write_config(running.config, path)
    try:
        running.wait_ready()
        _read_the_file(running)
        yield running
    finally:
        running.close()


def _read_the_file(running: Supervised) -> None:
    """The routes of the file are not those that it has started with."""
    running.signal(signal.SIGHUP)
    running.wait_event("configuration reloaded")


def quicedge(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quicedge", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_reload_waits_and_says_what_changed(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=2) as edge:
        config = tmp_path / "quicedge.toml"
        assert quicedge("reload", "-c", config).stdout == "reloaded\nnothing has changed\n"
        write_config(edge.config, config, drain_timeout=7.0, limits={"max_uri": 4096})
        done = quicedge("reload", "--config", config)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "reloaded", "drain_timeout: 30.0 -> 7.0", "limits.max_uri: 16384 -> 4096",
        ]  # fmt: skip
        assert all(edge.who_is(slot)["drain_timeout"] == 7.0 for slot in range(2))


def test_a_refused_reload_says_where_and_why_and_exits_with_1(tmp_path: Path) -> None:
    with supervised(tmp_path, drain_timeout=7.0) as edge:
        config = tmp_path / "quicedge.toml"
        right = config.read_text()
        config.write_text(right + '\n[limits]\nmax_urii = 5\nhandshake_timeout = "soon"\n')
        done = quicedge("reload", "-c", config)
        assert (done.returncode, done.stdout) == (1, "")
        line = right.count("\n") + 3
        assert (
            f"{config}:{line}: limits.max_urii: unknown key; did you mean 'max_uri'?" in done.stderr
        )
        assert f"{config}:{line + 1}: limits.handshake_timeout: 'soon' is not" in done.stderr
        assert (edge.who() or {})["drain_timeout"] == 7.0


def test_validate_tries_everything_and_changes_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path, drain_timeout=30.0) as edge:
        config = tmp_path / "quicedge.toml"
        write_config(edge.config, config, drain_timeout=7.0)
        done = quicedge("reload", "--validate", "-c", config)
        assert (done.returncode, done.stdout) == (0, "drain_timeout: 30.0 -> 7.0\n")
        write_config(edge.config, config, quic={"max_streams": 9000})
        done = quicedge("reload", "--validate", "-c", config)
        assert done.returncode == 1
        assert "slot 0 does not like it" in done.stderr
        who = edge.who() or {}
        assert (who["drain_timeout"], who["prepared"]) == (30.0, False)
        assert edge.get("/api/v1/status")[1]["reloads"] == 1


def test_status_and_stop(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=2) as edge:
        config = tmp_path / "quicedge.toml"
        done = quicedge("status", "-c", config)
        assert f"pid          {edge.process.pid}" in done.stdout
        assert f"core         {native.core}" in done.stdout
        assert f"listening    127.0.0.1:{edge.port}" in done.stdout
        assert "worker 1     ready, pid" in done.stdout
        found = json.loads(quicedge("status", "--json", "-c", config).stdout)
        assert [worker["state"] for worker in found["workers"]] == ["ready", "ready"]
        done = quicedge("stop", "-c", config)
        assert (done.returncode, done.stdout) == (0, "stopping\n")
        # The command waits for the very end, not for the process to be reaped.
        assert edge.wait(5.0) == 0
        done = quicedge("status", "-c", config)
        assert done.returncode == 1
        assert "no running edge found" in done.stderr


def test_stop_finds_the_edge_though_its_configuration_is_broken_by_now(tmp_path: Path) -> None:
    with supervised(tmp_path) as edge:
        config = tmp_path / "quicedge.toml"
        config.write_text(config.read_text().replace("[upstreams.app]", "[upstreams.other]"))
        assert quicedge("stop", "-c", config).returncode == 0
        assert edge.wait(5.0) == 0


def test_a_configuration_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "quicedgee.toml"
    done = quicedge("reload", "-c", missing)
    assert done.returncode == 1
    assert f"Error: {missing}: No such file or directory; no running edge found" in done.stderr


def test_stop_waits_for_what_runs_and_stop_now_does_not(tmp_path: Path) -> None:
    with supervised(tmp_path, drain_timeout=600) as edge, ThreadPoolExecutor() as pool:
        config = tmp_path / "quicedge.toml"
        with edge.talking_to(0) as sock:
            sock.send(b"hold")
            assert sock.recv(100) == b"held"
        stopping = pool.submit(quicedge, "stop", "-c", config)
        edge.wait_event("draining")
        assert not stopping.done()
        assert quicedge("stop", "--now", "-c", config).returncode == 0
        assert stopping.result(20).returncode == 0
        assert edge.wait(5.0) == 0


def test_only_root_and_the_user_of_the_edge_are_obeyed(tmp_path: Path) -> None:
    with supervised(tmp_path) as edge:
        control = tmp_path / "control.sock"
        assert control.stat().st_mode & 0o777 == 0o600
        if os.geteuid() != 0:
            pytest.skip("needs root to become another user")
        # Even where the mode of the file is not what keeps them out.
        control.chmod(0o666)
        for folder in (tmp_path, *tmp_path.parents[:-2]):
            folder.chmod(folder.stat().st_mode | 0o011)
        program = (
            "import os, socket, sys; os.setresuid(12345, 12345, 12345); s = socket.socket(1); "
            "s.connect(sys.argv[1]); print(s.recv(100))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(control)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.stdout == "b''\n", done.stderr
        assert edge.wait_event("command refused")["user"] == 12345
        assert edge.get("/readyz")[0] == 200


def test_clients_that_say_nothing_or_nonsense_cost_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path) as edge:
        silent = []
        for words in (b"", b"nonsense\n", b'{"command": "dance"}\n', b"x" * 100_000):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(str(tmp_path / "control.sock"))
            with contextlib.suppress(OSError):
                client.sendall(words)
            silent.append(client)
        assert b"malformed request" in silent[1].recv(1000)
        assert b"unknown command 'dance'" in silent[2].recv(1000)
        assert silent[0].recv(100) == b"", "cut off after a while"
        assert quicedge("status", "-c", tmp_path / "quicedge.toml").returncode == 0
        assert "Traceback" not in edge.log_text()
        for client in silent:
            client.close()


# --- the API -----------------------------------------------------------------------------------


def post(edge: Supervised, path: str, body: bytes, kind: str = "application/toml", **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", edge.admin_port, timeout=30)
    headers = {"content-type": kind, "authorization": f"Bearer {TOKEN}", **headers}
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Supervised]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    path = tmp_path / "quicedge.toml"
    running = Supervised(tmp_path, {"drain_timeout": 30.0}, path, token=token)
    write_config(running.config, path)
    try:
        running.wait_ready()
        _read_the_file(running)
        yield running
    finally:
        running.close()


def test_a_configuration_in_a_request_is_used_until_the_next_reload(
    api: Supervised, tmp_path: Path
) -> None:
    path = tmp_path / "quicedge.toml"
    file = path.read_bytes()
    document = file.replace(b"drain_timeout = 30.0", b"drain_timeout = 7.0")
    changed = ["drain_timeout: 30.0 -> 7.0"]
    assert post(api, "/api/v1/config?validate", document) == (200, {"validated": changed})
    assert (api.who() or {})["drain_timeout"] == 30.0
    assert post(api, "/api/v1/config", document) == (200, {"changed": changed})
    assert (api.who() or {})["drain_timeout"] == 7.0
    assert path.read_bytes() == file
    assert quicedge("reload", "-c", path).stdout == "reloaded\ndrain_timeout: 7.0 -> 30.0\n"


def test_what_the_api_shows_can_be_changed_and_sent_back(api: Supervised) -> None:
    status, shown = api.get("/api/v1/config")
    assert status == 200
    assert "drain_timeout" not in shown, "it is as by default"
    shown["drain_timeout"] = 5.0
    answer = post(api, "/api/v1/config", json.dumps(shown).encode(), "application/json")
    assert answer == (200, {"changed": ["drain_timeout: 30.0 -> 5.0"]})


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (b"drain_timeout = = 3", "application/toml", "request:1: Invalid value (column 17)"),
        (b"[]", "application/json", "request: is not a JSON object"),
        (b'{"workerz": 3}', "application/json", "request: workerz: unknown key; did you mean"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(
    api: Supervised, document: bytes, kind: str, words: str
) -> None:
    status, answer = post(api, "/api/v1/config", document, kind)
    assert status == 400
    assert words in answer["error"]
    assert (api.who() or {})["drain_timeout"] == 30.0


def test_forms_of_web_pages_change_nothing(api: Supervised, tmp_path: Path) -> None:
    document = (tmp_path / "quicedge.toml").read_bytes()
    assert post(api, "/api/v1/config", document, "text/plain")[0] == 415
    assert post(api, "/api/v1/config", document, origin="http://evil.example")[0] == 403
    assert post(api, "/api/v1/log-level", b"", "application/toml")[0] == 415


def test_users_of_the_machine_cannot_change_what_is_served(tmp_path: Path) -> None:
    """On a loopback port without a token nobody knows who asks."""
    with supervised(tmp_path) as edge:
        status, answer = post(edge, "/api/v1/config", (tmp_path / "quicedge.toml").read_bytes())
        assert status == 403
        assert answer["error"] == "requires admin.token_file, or admin.listen on a unix socket"


def test_a_storm_of_reloads_half_of_them_broken_leaves_the_last_good_one(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=2) as edge, ThreadPoolExecutor() as pool:
        config = tmp_path / "quicedge.toml"
        pids = {worker["pid"] for worker in edge.workers()}
        hup = pool.submit(_hang_up, edge, 20)
        for turn in range(10):
            write_config(edge.config, config, drain_timeout=10.0 + turn)
            assert quicedge("reload", "-c", config).returncode == 0
            write_config(edge.config, config, drain_timeout=-1.0)
            done = quicedge("reload", "-c", config)
            assert done.returncode == 1
            assert "drain_timeout: -1.0 is not" in done.stderr
            write_config(edge.config, config, drain_timeout=10.0 + turn)
        hup.result()
        wait_for(lambda: (edge.who() or {}).get("drain_timeout") == 19.0, "the last good one")
        assert {worker["pid"] for worker in edge.workers()} == pids
        assert "Traceback" not in edge.log_text()


def _hang_up(edge: Supervised, times: int) -> None:
    for _ in range(times):
        edge.signal(signal.SIGHUP)
        time.sleep(0.05)
