"""A reload is a transaction: all workers use the new configuration, or none does."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.edge import RunningEdge, edge
from tests.support.fake_worker import FATAL_AT_START, REFUSED_BY_SLOT
from tests.support.origin import demo_origin
from tests.support.peers import wait_until
from tests.support.supervised import Supervised, wait_for, write_config

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing the user requires root")


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """Two workers without QUIC, whose configuration file is `quicedge.toml`."""
    running = Supervised(
        tmp_path, {"workers": 2, "drain_timeout": 30.0}, tmp_path / "quicedge.toml"
    )
    running.wait_ready()
    yield running
    running.close()


def _reload(running: Supervised, tmp_path: Path, **changes) -> None:
    write_config(running.config, tmp_path / "quicedge.toml", **changes)
    running.signal(signal.SIGHUP)


def test_a_reload_that_one_worker_refuses_changes_none(supervised, tmp_path: Path) -> None:
    _reload(supervised, tmp_path, drain_timeout=7.0, quic={"max_streams": REFUSED_BY_SLOT + 1})
    error = supervised.wait_event("reload failed; configuration unchanged")["error"]
    assert error == "quic.max_streams: slot 1 does not like it (worker 1)"
    for slot in (0, 1):
        who = supervised.who_is(slot)
        assert (who["drain_timeout"], who["prepared"]) == (30.0, False)
    assert supervised.get("/api/v1/status")[1]["last_reload_error"] == error
    assert not supervised.events("configuration reloaded")
    # It is no obstacle to the next one.
    _reload(supervised, tmp_path, drain_timeout=8.0)
    supervised.wait_event("configuration reloaded")
    assert {supervised.who_is(slot)["drain_timeout"] for slot in (0, 1)} == {8.0}


def test_settings_that_workers_do_not_start_with_are_reverted(supervised, tmp_path: Path) -> None:
    _reload(supervised, tmp_path, drain_timeout=7.0, quic={"max_streams": FATAL_AT_START})
    supervised.wait_event("configuration reloaded")
    assert supervised.who_is(1)["drain_timeout"] == 7.0
    with supervised.talking_to(0) as sock:
        sock.send(b"crash")
    said = supervised.wait_event("configuration reverted; workers failed to start with the new one")
    assert said["error"] == "quic.max_streams: too many for me"
    assert said["failed_starts"] == 3
    wait_for(lambda: supervised.get("/readyz")[0] == 200, "ready again")
    assert {supervised.who_is(slot)["drain_timeout"] for slot in (0, 1)} == {30.0}
    assert "too many" in supervised.get("/api/v1/status")[1]["last_reload_error"]
    assert "Traceback" not in supervised.log_text()


def test_only_settings_that_a_worker_has_started_with_are_gone_back_to(
    supervised, tmp_path: Path
) -> None:
    for count, timeout in enumerate((7.0, 8.0), 1):
        _reload(supervised, tmp_path, drain_timeout=timeout, quic={"max_streams": FATAL_AT_START})
        supervised.wait_event("configuration reloaded", count)
    with supervised.talking_to(0) as sock:
        sock.send(b"crash")
    supervised.wait_event("configuration reverted; workers failed to start with the new one")
    wait_for(lambda: supervised.get("/readyz")[0] == 200, "ready again")
    assert {supervised.who_is(slot)["drain_timeout"] for slot in (0, 1)} == {30.0}


def test_a_worker_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    running = Supervised(tmp_path, {"quic": {"max_streams": FATAL_AT_START}})
    try:
        assert running.wait() == 1
        (said,) = running.events("cannot start")
        reason = "worker 0 failed to start: quic.max_streams: too many for me"
        assert said["error"] == reason
        assert running.process.stderr is not None
        assert running.process.stderr.read() == f"quicedge: {reason}\n"
    finally:
        running.close()


# --- whole edges ------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory whose parents anybody may pass, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _change(running: RunningEdge, old: str, new: str) -> None:
    path = running.directory / "quicedge.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    running.process.send_signal(signal.SIGHUP)


def _refusal(running: RunningEdge) -> str:
    status: dict = {}

    def refused() -> bool:
        status.update(running.admin("/api/v1/status"))
        return status["last_reload_error"] is not None

    wait_until(refused, "the refusal")
    assert status["reloads"] == 0
    return status["last_reload_error"]


def _replace_workers(running: RunningEdge) -> None:
    """Kill every worker and wait until others have taken their places."""
    before = {worker["pid"] for worker in running.admin("/api/v1/status")["workers"]}
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = running.admin("/api/v1/status")["workers"]
        return all(worker["state"] == "ready" and worker["pid"] not in before for worker in now)

    wait_until(replaced, "other workers")


def test_a_log_file_that_cannot_be_opened_refuses_the_reload(folder: Path) -> None:
    with demo_origin() as origin, edge(folder, origin, options="workers = 2") as running:
        _change(running, '"access.log"', '"nowhere/access.log"')
        error = _refusal(running)
        assert error.startswith(f"log.access_file: {folder}/nowhere/access.log: No such file")
        assert error.endswith("(worker 0, 1)")
        # What serves, and what takes its place, go by the configuration before.
        _replace_workers(running)
        assert running.get("/echo").returncode == 0
        wait_until(lambda: bool(running.access()), "the access log")


def test_a_log_that_is_a_pipe_without_a_reader_refuses_the_reload(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with demo_origin() as origin, edge(folder, origin) as running:
        _change(running, '"access.log"', '"pipe"')
        assert "pipe has no reader (worker 0)" in _refusal(running)
        assert running.get("/echo").returncode == 0


@needs_root
def test_a_root_that_the_user_cannot_read_refuses_the_reload(folder: Path) -> None:
    secret = folder / "secret"
    secret.mkdir(mode=0o700)
    with demo_origin() as origin, edge(folder, origin, options='user = "nobody"') as running:
        files = (
            f'[[routes]]\npath = "/files"\nupstream = "files"\n[upstreams.files]\nroot = "{secret}"'
        )
        _change(running, "[log]", f"{files}\n[log]")
        assert f"upstreams.files.root: {secret}: Permission denied" in _refusal(running)
        _replace_workers(running)
        assert running.get("/echo").returncode == 0


@needs_root
def test_a_refused_reload_leaves_files_in_their_owners_hands(folder: Path) -> None:
    precious = folder / "precious"
    precious.write_text("not a log")
    precious.chmod(0o600)
    with demo_origin() as origin, edge(folder, origin, options='user = "nobody"') as running:
        _change(
            running, '"access.log"', f'"new.log"\nfile = "{precious}"\n[qlog]\ndirectory = "/root"'
        )
        assert "qlog.directory" in _refusal(running)
        assert precious.stat().st_uid == 0
        assert not (folder / "new.log").exists()
        assert (folder / "access.log").stat().st_uid == pwd.getpwnam("nobody").pw_uid


@needs_root
def test_a_log_file_that_was_removed_is_made_for_the_next_worker(folder: Path) -> None:
    with demo_origin() as origin, edge(folder, origin, options='user = "nobody"') as running:
        wait_until((folder / "access.log").exists, "the access log")
        (folder / "access.log").unlink()
        _replace_workers(running)
        assert running.get("/echo").returncode == 0
        wait_until(lambda: bool(running.access()), "the access log of the new worker")


def test_a_log_that_cannot_be_reopened_goes_on_in_its_old_file(folder: Path) -> None:
    logs = folder / "logs"
    logs.mkdir()
    with demo_origin() as origin, edge(folder, origin) as running:
        _change(running, '"access.log"', '"logs/access.log"')
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == 1, "the reload")
        logs.rename(folder / "moved")
        running.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "cannot reopen log" in running.log(), "the report")
        assert running.get("/echo").returncode == 0
        moved = folder / "moved" / "access.log"
        wait_until(lambda: "/echo" in moved.read_text(), "the record in the old file")


def test_what_is_lost_after_the_start_costs_its_own_route_alone(folder: Path) -> None:
    site, logs = folder / "site", folder / "logs"
    site.mkdir()
    logs.mkdir()
    (site / "page").write_text("a page")
    files = f'[[routes]]\npath = "/page"\nupstream = "files"\n[upstreams.files]\nroot = "{site}"'
    log = 'file = "logs/edge.log"'
    with demo_origin() as origin, edge(folder, origin, files, log=log) as running:
        assert running.get("/page").stdout == b"a page"
        shutil.rmtree(site)
        shutil.rmtree(logs)
        _replace_workers(running)
        assert running.get("/echo").returncode == 0
        assert b"HTTP/3 503" in running.get("/page", "-v").stderr
        assert f"upstreams.files.root: {site}: No such file" in running.log()
        assert f"log.file: {logs}/edge.log: No such file" in running.log()
        site.mkdir()
        logs.mkdir()
        (site / "page").write_text("another page")
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == 1, "the reload")
        assert running.get("/page").stdout == b"another page"
