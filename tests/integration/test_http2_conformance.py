"""h2spec against the edge's TCP port: generic, HTTP/2 and HPACK cases, and its strict ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.edge import edge
from tests.support.origin import demo_origin
from tests.support.peers import require


@pytest.mark.parametrize("suite", ["generic", "http2", "hpack"])
def test_h2spec_passes_all_its_cases(suite: str, tmp_path: Path) -> None:
    program = require("h2spec")
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        command = [
            program, suite, "-h", "localhost", "-p", str(running.port), "-t", "-k", "--strict",
            "-o", "10",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert " 0 failed" in done.stdout, done.stdout
