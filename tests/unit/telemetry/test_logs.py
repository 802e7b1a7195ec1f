import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from quicedge.config.schema import Log, LogFormat
from quicedge.config.unusable import UnusableError
from quicedge.telemetry.logs import Logs


@contextmanager
def _logs(config: Log, **rest) -> Iterator[Logs]:
    logs = Logs(config, **rest)
    try:
        yield logs
    finally:
        logs.close()


def _json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_of_structlog_and_of_libraries(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with _logs(Log(format=LogFormat.JSON, file=str(path)), process="worker 0"):
        structlog.get_logger("edge").info("started", port=4433)
        logging.getLogger("some.library").warning("odd: %s", "thing")
    ours, theirs = _json_lines(path)
    assert ours["event"] == "started"
    assert ours["port"] == 4433
    assert ours["process"] == theirs["process"] == "worker 0"
    assert ours["level"] == "info"
    assert theirs["event"] == "odd: thing"
    assert theirs["logger"] == "some.library"
    assert ours["timestamp"].endswith("Z")


def test_level_filters_and_libraries_are_quieter(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with _logs(Log(format=LogFormat.JSON, file=str(path), level="info")):
        structlog.get_logger().debug("hidden")
        logging.getLogger("quic").info("hidden")
        structlog.get_logger().info("shown")
    assert [line["event"] for line in _json_lines(path)] == ["shown"]


def test_exceptions_are_one_json_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with _logs(Log(format=LogFormat.JSON, file=str(path))):
        for logger in (structlog.get_logger("a"), logging.getLogger("b")):
            try:
                raise ValueError("bad\nthing\x1b[0m")
            except ValueError:
                logger.exception("failed")
    lines = _json_lines(path)
    assert [line["event"] for line in lines] == ["failed", "failed"]
    assert all("ValueError: bad" in line["exception"] for line in lines)


@pytest.mark.parametrize("format", LogFormat)
def test_hostile_text_is_escaped(tmp_path: Path, format) -> None:
    path = tmp_path / "log"
    hostile = "x\r\n2026-01-01 [info] forged\x1b[2J\x9b\u2028"
    with _logs(Log(format=format, file=str(path))):
        structlog.get_logger().info("refused", sni=hostile, raw=hostile.encode(), list=[hostile])
        logging.getLogger("lib").warning(hostile)
        try:
            raise ValueError(hostile)
        except ValueError:
            structlog.get_logger().exception("failed")
    content = path.read_bytes().decode()
    assert not any(c in content for c in "\x1b\x9b\r\u2028")
    assert not any(line.startswith("2026-01-01") for line in content.splitlines())
    assert content.count("refused") == 1


def test_warnings_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logging.captureWarnings(False)
    with warnings.catch_warnings(), _logs(Log(format=LogFormat.JSON, file=str(path))):
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
        logging.captureWarnings(False)
    assert "careful" in path.read_text()


def test_reopen_moves_log_and_access_log(tmp_path: Path) -> None:
    log, access = tmp_path / "log", tmp_path / "access"
    with _logs(Log(format=LogFormat.JSON, file=str(log), access_file=str(access))) as logs:
        structlog.get_logger().info("before")
        log.rename(tmp_path / "log.1")
        access.rename(tmp_path / "access.1")
        logs.reopen()
        structlog.get_logger().info("after")
    assert [line["event"] for line in _json_lines(tmp_path / "log.1")] == ["before"]
    assert [line["event"] for line in _json_lines(log)] == ["after"]
    assert access.exists()


def test_a_successor_is_open_and_unused_until_it_replaces(tmp_path: Path) -> None:
    first = Log(format=LogFormat.JSON, file=str(tmp_path / "a"), level="warning")
    logs = Logs(first)
    assert (
        logs.successor(Log(format=LogFormat.JSON, file=str(tmp_path / "a"), level="warning"))
        is logs
    )
    logger = structlog.get_logger()
    dropped = logs.successor(Log(format=LogFormat.JSON, file=str(tmp_path / "c"), level="info"))
    logger.info("hidden")
    logs.discard(dropped)
    assert (tmp_path / "c").read_text() == ""
    successor = logs.successor(Log(format=LogFormat.JSON, file=str(tmp_path / "b"), level="info"))
    logger.info("hidden")
    logs = logs.replace_by(successor)
    logger.info("shown")
    logs.close()
    assert (tmp_path / "a").read_text() == ""
    assert [line["event"] for line in _json_lines(tmp_path / "b")] == ["shown"]


def test_a_log_file_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"^log\.file: .*/nowhere/log: No such file"):
        Logs(Log(file=str(tmp_path / "nowhere" / "log")))
    with pytest.raises(UnusableError, match=r"^log\.access_file: .*/nowhere/log: No such file"):
        Logs(Log(file=str(tmp_path / "log"), access_file=str(tmp_path / "nowhere" / "log")))


def test_the_access_log_can_be_off(tmp_path: Path) -> None:
    with _logs(Log(file=str(tmp_path / "log"), access=False)) as logs:
        assert logs.access is None
        assert logs.dropped == 0
