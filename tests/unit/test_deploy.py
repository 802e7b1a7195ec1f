"""The files of deploy/ fit the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quicedge.config import limits

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT = DEPLOY / "quicedge.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")
MOST_EXPOSURE = 2.5
"""Of 10; systemd calls less than 4 fine."""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # Whether the program is installed is no question of the unit's.
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/opt/quicedge/bin/quicedge", sys.executable))
    done = analyze("verify", str(installed))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_unit_exposes_little() -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot read a file alone")
    level = re.search(r"exposure level for quicedge.service: ([0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level[1]) <= MOST_EXPOSURE


def test_the_unit_gives_one_capability() -> None:
    unit = settings()
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert unit[name] == ["CAP_NET_BIND_SERVICE"]
    assert unit["User"] != ["root"]
    assert unit["Type"] == ["notify"]


def test_the_unit_waits_until_all_is_drained() -> None:
    (seconds,) = settings()["TimeoutStopSec"]
    assert int(seconds) > limits.DRAIN_TIMEOUT + limits.STOP_GRACE


def test_buffers_are_those_that_are_asked_for() -> None:
    text = (DEPLOY / "99-quicedge.conf").read_text()
    found = dict(re.findall(r"^(\S+) = (\d+)$", text, re.MULTILINE))
    assert found == {
        "net.core.rmem_max": str(limits.UDP_RECEIVE_BUFFER),
        "net.core.wmem_max": str(limits.UDP_SEND_BUFFER),
    }
