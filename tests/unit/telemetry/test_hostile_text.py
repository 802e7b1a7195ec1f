"""Whatever a peer says, no line of ours holds an escape sequence or a line break of theirs."""

from __future__ import annotations

import io
import json
import logging

import click
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from quicedge.cli import get
from quicedge.cli.client import Answer, FetchError
from quicedge.config.schema import Log, LogFormat
from quicedge.proxy.error_response import error_response
from quicedge.telemetry import logs
from quicedge.telemetry.text import escape, text

FIELDS = st.lists(st.tuples(st.binary(), st.binary()), max_size=3)


@given(st.binary())
def test_any_octets_become_one_printable_line(octets: bytes) -> None:
    assert escape(text(octets)).isprintable()


@pytest.mark.parametrize("format", LogFormat)
@given(said=st.text(), octets=st.binary())
def test_any_words_stay_in_their_line_of_the_log(
    format: LogFormat, said: str, octets: bytes
) -> None:
    formatter = logs._formatter(Log(format=format), "worker 0")
    event = {
        "event": said, "server_name": said, "path": octets, "reason": [said], "level": "info",
        "timestamp": "2026-01-02T03:04:05Z",
        "_record": None, "_from_structlog": True,
    }  # fmt: skip
    record = logging.LogRecord("test", logging.INFO, "", 0, event, None, None)
    record._logger, record._name = structlog.get_logger(), "info"  # type: ignore[attr-defined]
    line = formatter.format(record).encode("utf-8", "backslashreplace").decode()
    assert line.isprintable()
    if format is LogFormat.JSON:
        assert json.loads(line)["level"] == "info"


@given(fields=FIELDS, trailers=FIELDS)
def test_get_shows_a_servers_words_escaped(
    fields: list[tuple[bytes, bytes]], trailers: list[tuple[bytes, bytes]]
) -> None:
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get, "transport_line", lambda client: "")
        patch.setattr(click, "echo", lambda line, err: shown.write(line + "\n"))
        answer = Answer()
        answer.status, answer.fields, answer.trailers = 200, fields, trailers
        get.show_answer(None, answer)  # type: ignore[arg-type]
    lines = shown.getvalue().split("\n")
    assert len(lines) == 1 + len(fields) + len(trailers) + 2 + 1
    assert all(line.isprintable() for line in lines)


@given(st.text())
def test_a_servers_reason_is_escaped(reason: str) -> None:
    assert str(FetchError(f"connection closed: {reason}")).isprintable()


@given(st.integers(min_value=400, max_value=999), st.binary())
def test_error_pages_say_the_status_and_nothing_of_the_inside(status: int, method: bytes) -> None:
    response, body = error_response(status, method)
    assert not body or body.startswith(b"%d " % status)
    assert len(body) < 60
    names = {name for name, _ in response.fields}
    assert names == {b"content-type", b"content-length", b"cache-control"}
    assert b"quicedge" not in body.lower()
