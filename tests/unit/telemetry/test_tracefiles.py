"""Trace files: written by a thread, within a limit, whatever the disk does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quicedge.config import tracelimits
from quicedge.telemetry import tracefiles
from quicedge.telemetry.tracefiles import TraceFiles


def test_lines_reach_their_files(tmp_path: Path) -> None:
    files = TraceFiles(str(tmp_path), max_total=1 << 30)
    first, second = files.new("a"), files.new("b")
    assert first
    assert second
    for _ in range(100):
        assert first.write(b"one\n")
        assert second.write(b"two\n")
    first.close()
    files.close()
    assert (tmp_path / "a.sqlog").read_bytes() == b"one\n" * 100
    assert (tmp_path / "b.sqlog").read_bytes() == b"two\n" * 100
    assert files.open == 1
    assert (tmp_path / "a.sqlog").stat().st_mode & 0o007 == 0, "not for everybody to read"


def test_no_more_than_so_many_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefiles, "QLOG_MAX_OPEN", 2)
    files = TraceFiles(str(tmp_path), max_total=1 << 30)
    first, second = files.new("a"), files.new("b")
    assert first
    assert second
    assert files.new("c") is None
    first.close()
    assert files.new("c") is not None
    files.close()


def test_what_waits_for_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracefiles, "QLOG_BUFFER", 100)
    os.mkfifo(tmp_path / "a.sqlog")  # opening it hangs, as on a broken disk
    files = TraceFiles(str(tmp_path), max_total=1 << 30)
    file = files.new("a")
    assert file is not None
    assert file.write(b"x" * 60)
    assert not file.write(b"x" * 60)
    assert file.write(b"x" * 40)
    assert files.dropped == 1
    with (tmp_path / "a.sqlog").open("rb") as reader:
        assert reader.read(100) == b"x" * 100
    files.close()


def test_a_full_disk_is_counted_and_the_next_trace_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if bytes(data).startswith(b"bad"):
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    files = TraceFiles(str(tmp_path), max_total=1 << 30)
    bad, good = files.new("bad"), files.new("good")
    assert bad
    assert good
    bad.write(b"bad\n")
    good.write(b"good\n")
    files.close()
    assert files.failed == 1
    assert (tmp_path / "good.sqlog").read_bytes() == b"good\n"


def test_a_missing_directory_costs_events_alone(tmp_path: Path) -> None:
    files = TraceFiles(str(tmp_path / "gone"), max_total=1 << 30)
    file = files.new("a")
    assert file is not None
    assert file.write(b"line\n")
    files.close()
    assert files.failed == 1


def test_the_oldest_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        path = tmp_path / f"{name}.sqlog"
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "mine.txt").write_bytes(b"x" * 5000)
    files = TraceFiles(str(tmp_path), max_total=2500)
    file = files.new("now")
    assert file is not None
    file.write(b"y" * 1000)
    files.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.txt",
        "newest.sqlog",
        "now.sqlog",
    ]
    assert tracelimits.QLOG_PRUNE_EVERY > 0
