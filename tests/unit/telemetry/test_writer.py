import json
import os
import threading
import time
from pathlib import Path

import pytest

from quicedge.config.schema import LogFormat
from quicedge.telemetry.access import AccessLog, AccessRecord
from quicedge.telemetry.writer import LineWriter


def _record() -> AccessRecord:
    return AccessRecord(
        method="GET",
        authority="example.com",
        path="/index.html",
        status=200,
        outcome="complete",
        bytes_received=0,
        bytes_sent=1234,
        total_seconds=0.0123,
        first_byte_seconds=0.01,
        queue_seconds=0.0,
        connect_seconds=0.0,
        upstream="app",
        server="127.0.0.1:8000",
        client="192.0.2.1:4433",
        quic_version="v1",
        connection_id="0011223344556677",
        stream_id=0,
        smoothed_rtt=0.025,
        min_rtt=0.02,
        congestion_window=14720,
        bytes_in_flight=0,
        packets_lost=0,
        user_agent="a client",
    )


def test_lines_reach_the_file_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    lines = [b"%d\n" % n for n in range(20_000)]
    for line in lines:
        assert writer.write(line)
    writer.close()
    assert path.read_bytes() == b"".join(lines)
    assert writer.dropped == 0


def test_rotation_by_renaming_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    writer = LineWriter(str(path), flush_interval=0.01)
    for n in range(5000):
        writer.write(b"%d\n" % n)
    path.rename(tmp_path / "access.log.1")
    writer.reopen()
    for n in range(5000, 10_000):
        writer.write(b"%d\n" % n)
    writer.close()
    old, new = (tmp_path / "access.log.1").read_bytes(), path.read_bytes()
    assert old == b"".join(b"%d\n" % n for n in range(5000))
    assert new == b"".join(b"%d\n" % n for n in range(5000, 10_000))


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = LineWriter(str(folder / "log"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(OSError, match="No such file"):
        writer.reopen()
    writer.write(b"still here\n")
    writer.close()
    assert (tmp_path / "moved" / "log").read_bytes() == b"still here\n"


def test_a_pipe_without_a_reader_is_refused_and_holds_nobody_up(tmp_path: Path) -> None:
    pipe = tmp_path / "access.log"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe has no reader"):
        LineWriter(str(pipe))


def test_a_pipe_with_a_reader_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "access.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(str(pipe))
    assert os.get_blocking(writer._fd), "a full pipe would be asked again and again"
    writer.write(b"a line\n")
    writer.close()
    assert os.read(reader, 100) == b"a line\n"
    os.close(reader)


def test_a_slow_disk_drops_and_counts_and_does_not_block(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # A pipe that nobody reads is a disk that hangs.
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(str(fifo), buffer_size=200_000)
    line = b"x" * 999 + b"\n"
    started = time.perf_counter()
    accepted = sum(writer.write(line) for _ in range(1000))
    assert time.perf_counter() - started < 1.0
    assert writer.dropped == 1000 - accepted > 500
    os.set_blocking(reader, True)
    received = 0
    closer = threading.Thread(target=writer.close, args=(10.0,))
    closer.start()
    while data := os.read(reader, 65536):
        received += data.count(b"\n")
    closer.join()
    os.close(reader)
    assert received == accepted


def test_a_full_disk_is_counted() -> None:
    writer = LineWriter("/dev/full")
    for _ in range(10):
        writer.write(b"lost\n")
    writer.close()
    assert writer.dropped == 10


def test_a_line_torn_by_a_full_disk_is_ended_before_the_next(monkeypatch, tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    real = os.write
    answers = [5, OSError(28, "No space left on device")]

    def short_write(fd: int, data: bytes) -> int:
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, OSError):
            torn.set()
            raise answer
        return real(fd, data[:answer])

    torn = threading.Event()
    monkeypatch.setattr("quicedge.telemetry.writer.os.write", short_write)
    writer.write(b"first line\n")
    assert torn.wait(5)
    writer.write(b"second line\n")
    writer.close()
    assert path.read_bytes() == b"first\nsecond line\n"
    assert writer.dropped == 1


def test_a_non_blocking_pipe_is_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(str(fifo))
    os.set_blocking(writer._fd, False)
    payload = b"".join(b"%09d\n" % n for n in range(30_000))
    for at in range(0, len(payload), 1000):
        writer.write(payload[at : at + 1000])
    os.set_blocking(reader, True)
    closer = threading.Thread(target=writer.close, args=(10.0,))
    closer.start()
    received = b""
    while data := os.read(reader, 65536):
        received += data
    closer.join()
    os.close(reader)
    assert received == payload


def test_access_records_are_json_lines_with_their_time(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    writer = LineWriter(str(path), flush_interval=0.01)
    now = [1_700_000_000.25]
    log = AccessLog(writer, LogFormat.JSON, clock=lambda: now[0])
    log.log(_record())
    now[0] += 1.5
    log.log(_record())
    writer.close()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["time"] == "2023-11-14T22:13:20.250Z"
    assert second["time"] == "2023-11-14T22:13:21.750Z"
    assert first["smoothed_rtt"] == 0.025
    assert first["outcome"] == "complete"


def test_a_record_is_cheap(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "access.log"), flush_interval=0.25)
    log = AccessLog(writer, LogFormat.JSON)
    best = float("inf")
    for _ in range(5):
        started = time.thread_time()
        for _ in range(1000):
            log.log(_record())
        best = min(best, (time.thread_time() - started) / 1000)
    writer.close()
    # About 3 us here; the bound leaves room for a slow machine, not for a slow method.
    assert best < 25e-6, f"{best * 1e6:.1f} us a record"
    assert writer.dropped == 0
