"""Workers give up what the start needed, and cannot take it back."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quicedge.worker.privileges import PrivilegeError, identity_of
from tests.support.certs import write_certificate
from tests.support.edge import REPOSITORY, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing the user requires root")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory whose parents anybody may pass, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@needs_root
def test_a_worker_runs_as_the_configured_user(open_directory: Path) -> None:
    with (
        demo_origin() as origin,
        edge(open_directory, origin, options='user = "nobody"') as running,
    ):
        assert running.get("/echo").returncode == 0
        status = status_of(running.worker_pid())
        assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4
        assert "0" not in status["Groups"].split()
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        wait_until(lambda: bool(running.access()), "the access log")
        access = open_directory / "access.log"
        assert access.stat().st_uid == NOBODY.pw_uid
        # The key is its owner's alone: what serves a new one after a reload came by the supervisor.
        assert running.certificate.key.stat().st_mode & 0o777 == 0o600
        assert running.certificate.key.stat().st_uid == 0
        access.rename(open_directory / "access.log.1")
        running.process.send_signal(10)  # SIGUSR1
        wait_until(access.exists, "the new log")
        running.process.send_signal(1)  # SIGHUP
        wait_until(lambda: running.admin("/api/v1/status")["reloads"] == 1, "the reload")
        assert running.get("/echo").returncode == 0
        wait_until(lambda: bool(running.access()), "the new access log")


DROP = """
import os, sys
from quicedge.worker.privileges import Identity, drop_privileges
drop_privileges(Identity(65534, 65534, [65534]))
for regain in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0),
               lambda: os.setgroups([0]), lambda: os.open("/etc/shadow", os.O_RDONLY)):
    try:
        regain()
    except PermissionError:
        continue
    sys.exit("regained")
print(os.getresuid(), os.getgroups())
"""


@needs_root
def test_nothing_can_be_regained() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROP], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(65534, 65534, 65534) [65534]\n"


def test_users_that_cannot_be() -> None:
    assert identity_of(None, None) is None
    with pytest.raises(PrivilegeError, match="group: has no effect without user"):
        identity_of(None, "nogroup")
    with pytest.raises(PrivilegeError, match="user: unknown user 'nobody-at-all'"):
        identity_of("nobody-at-all", None)
    with pytest.raises(PrivilegeError, match="group: unknown group 'no-such-group'"):
        identity_of("nobody", "no-such-group")
    with pytest.raises(PrivilegeError, match="must not run as root"):
        identity_of("0", None)


def test_a_key_that_others_can_read_fails_the_start(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(0o644)
    config = tmp_path / "quicedge.toml"
    config.write_text(f"""
listen = ["127.0.0.1:0"]
upstreams.app.servers = ["http://127.0.0.1:9"]
routes = [{{ upstream = "app" }}]
tls.certificates = [{{ cert = "{cert}", key = "{key}" }}]
admin.enabled = false
""")
    done = subprocess.run(
        [sys.executable, "-m", "quicedge", "serve", "--config", str(config)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(key) in done.stderr
    assert "mode 644" in done.stderr
    assert "Traceback" not in done.stderr
