"""The process that workers are forked from: what a rehearsal leaves, and how descriptors move."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quicedge.worker.fork_server import _renumber

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

REHEARSE = """
import os, sys, threading
from quicedge.worker.rehearsal import rehearse
before = set(os.listdir("/proc/self/fd"))
rehearse()
assert set(os.listdir("/proc/self/fd")) == before
assert threading.active_count() == 1
assert os.environ["SSLKEYLOGFILE"] == sys.argv[1]
"""


def test_a_rehearsal_leaves_nothing_open_and_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    keylog = tmp_path / "keys"
    done = subprocess.run(
        [sys.executable, "-c", REHEARSE, str(keylog)],
        env={**os.environ, "SSLKEYLOGFILE": str(keylog)}, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not keylog.exists()


def test_descriptors_get_their_numbers_even_where_those_are_taken_by_each_other() -> None:
    (first, other), (second, another) = os.pipe(), os.pipe()
    os.write(other, b"first")
    os.write(another, b"second")
    _renumber({first: second, second: first})
    try:
        assert (os.read(first, 10), os.read(second, 10)) == (b"second", b"first")
        assert not os.get_inheritable(first)
    finally:
        for fd in (first, second, other, another):
            os.close(fd)
