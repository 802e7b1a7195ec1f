"""`quicedge check` beside a running edge, and as the user that workers become."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certs import write_certificate
from tests.support.edge import REPOSITORY, edge
from tests.support.origin import demo_origin
from tests.support.peers import free_edge_port, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing the user requires root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory whose parents anybody may pass, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def check(config: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and level and message by subject."""
    done = subprocess.run(
        [sys.executable, "-m", "quicedge", "check", "--json", "--config", str(config)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    return done.returncode, {item["subject"]: (item["level"], item["message"]) for item in found}


def test_edit_check_and_reload_work_beside_the_running_edge(tmp_path: Path) -> None:
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        config = tmp_path / "quicedge.toml"
        held = ("ok", f"held by the running edge (pid {running.process.pid})")
        config.write_text(config.read_text().replace('"5s"', '"6s"'))
        code, found = check(config)
        assert code == 0, found
        for transport in ("UDP", "TCP"):
            assert found[f"listen 127.0.0.1:{running.port} {transport}"] == held
            assert found[f"listen [::1]:{running.port} {transport}"] == held
        assert found[f"admin 127.0.0.1:{running.admin_port}"] == held
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == 1, "the reload")
        # What a reload does to workers is said before it is tried.
        config.write_text(f"workers = 2\n{config.read_text()}")
        code, found = check(config)
        assert code == 0
        assert found["workers"][0] == "ok"
        assert found["workers"][1] == "the running edge has 1"


def test_an_edge_without_an_admin_api_is_known_by_its_file(tmp_path: Path) -> None:
    write_certificate(tmp_path, "localhost")
    port = free_edge_port()
    config = tmp_path / "quicedge.toml"
    config.write_text(f"""
listen = ["127.0.0.1:{port}"]
upstreams.app.servers = ["http://127.0.0.1:9"]
routes = [{{ upstream = "app" }}]
tls.certificates = [{{ cert = "cert.pem", key = "cert.key" }}]
admin.enabled = false
log = {{ file = "edge.log", format = "json" }}
""")
    log = tmp_path / "edge.log"
    running = subprocess.Popen(
        [sys.executable, "-m", "quicedge", "serve", f"--config={config}"], cwd=REPOSITORY
    )
    try:
        wait_until(lambda: log.exists() and '"ready"' in log.read_text(), "the edge")
        held = f"held by the running edge (pid {running.pid})"
        subjects = [f"listen 127.0.0.1:{port} {transport}" for transport in ("UDP", "TCP")]
        assert {check(config)[1][subject] for subject in subjects} == {("ok", held)}
        other = tmp_path / "other.toml"
        other.write_text(config.read_text())
        code, found = check(other)
        assert code == 1
        for subject in subjects:
            assert found[subject][0] == "error"
            assert f"(pid {running.pid})" in found[subject][1]
    finally:
        running.terminate()
        assert running.wait(30) == 0


@needs_root
def test_a_directory_out_of_the_users_reach_is_not_called_missing(folder: Path) -> None:
    write_certificate(folder, "localhost")
    (folder / "closed" / "traces").mkdir(parents=True)
    (folder / "closed").chmod(0o700)
    config = folder / "quicedge.toml"
    config.write_text("""
listen = ["127.0.0.1:0"]
user = "nobody"
routes = [{ upstream = "app" }]
tls.certificates = [{ cert = "cert.pem", key = "cert.key" }]
admin.enabled = false
upstreams.app.servers = ["http://127.0.0.1:9"]
qlog.directory = "closed/traces"
""")
    nobody = pwd.getpwnam("nobody").pw_uid
    assert check(config)[1][f"qlog.directory {folder}/closed/traces"] == (
        "error", f"Permission denied (as user {nobody})",
    )  # fmt: skip


@needs_root
def test_root_checks_permissions_as_the_configured_user(folder: Path) -> None:
    write_certificate(folder, "localhost")
    for name in ("site", "traces", "logs"):
        (folder / name).mkdir(mode=0o700)
    (folder / "old.log").touch(mode=0o600)
    nobody = pwd.getpwnam("nobody").pw_uid
    with socket.socket(socket.AF_UNIX) as origin:
        origin.bind(str(folder / "origin.sock"))
        origin.listen()
        (folder / "origin.sock").chmod(0o700)
        config = folder / "quicedge.toml"
        config.write_text(f"""
listen = ["127.0.0.1:0"]
user = "nobody"
routes = [{{ upstream = "files" }}, {{ upstream = "app", path = "/app" }}]
tls.certificates = [{{ cert = "cert.pem", key = "cert.key" }}]
admin.enabled = false
upstreams.files.root = "site"
upstreams.app.servers = ["unix:{folder}/origin.sock"]
log = {{ file = "old.log", access_file = "logs/access.log" }}
qlog.directory = "traces"
""")
        code, found = check(config)
        assert code == 1
        assert found[f"upstream files {folder}/site"] == (
            "error", f"Permission denied (as user {nobody})",
        )  # fmt: skip
        assert found[f"qlog.directory {folder}/traces"] == (
            "error", f"user {nobody} cannot write there",
        )  # fmt: skip
        assert found[f"log.access_file {folder}/logs/access.log"] == (
            "error", f"Permission denied (as user {nobody})",
        )  # fmt: skip
        assert found[f"upstream app unix:{folder}/origin.sock"] == (
            "error", f"Permission denied (as user {nobody})",
        )  # fmt: skip
        # The supervisor gives this file to the user, and alone reads the key.
        assert found[f"log.file {folder}/old.log"] == ("ok", "is writable")
        assert not [subject for subject in found if subject.startswith("key /")]
        for name in ("site", "logs"):
            (folder / name).chmod(0o755)
        os.chown(folder / "traces", nobody, -1)
        os.chown(folder / "origin.sock", nobody, -1)
        code, found = check(config)
        assert code == 0, found
