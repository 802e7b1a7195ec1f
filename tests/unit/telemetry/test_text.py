import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.telemetry.access import AccessRecord, encode_console, encode_json
from quicedge.telemetry.text import escape, escape_json, text

HOSTILE = "GET\x1b[2J\r\n\x9b31m\x7f\u2028\u202e\U000e0001é"


def _record(**changes) -> AccessRecord:
    values = {
        "time": "2026-01-02T03:04:05.678Z",
        "method": "GET",
        "authority": "example.com",
        "path": "/",
        "status": 200,
        "outcome": "complete",
        "bytes_received": 0,
        "bytes_sent": 12,
        "total_seconds": 0.0123,
    }
    return AccessRecord(**{**values, **changes})


def test_escape_leaves_printable_text_alone() -> None:
    assert escape("/straße?q=1 2") == "/straße?q=1 2"


def test_escape_shows_controls() -> None:
    assert escape("a\x1b[31m\n\u202e") == "a\\x1b[31m\\n\\u202e"


def test_octets_become_ascii() -> None:
    assert text(b"/a\xff\x80") == "/a\\xff\\x80"


@given(st.text())
def test_nothing_unprintable_is_left_after_escape(value: str) -> None:
    assert escape(value).isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_json_means_the_same_and_is_printable(value: str) -> None:
    line = escape_json(json.dumps({"v": value}, ensure_ascii=False).encode())
    assert line.decode().isprintable()
    assert json.loads(line) == {"v": value}


@given(st.text(), st.text(), st.text())
def test_access_lines_hold_no_control_bytes(path: str, agent: str, authority: str) -> None:
    record = _record(path=path, user_agent=agent, authority=authority)
    line = encode_json(record)
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()
    assert json.loads(line)["path"] == path
    console = encode_console(record)
    assert console[:-1].decode().isprintable()
    assert console.endswith(b"\n")


@pytest.mark.parametrize("encode", [encode_json, encode_console])
def test_a_hostile_path_stays_in_its_line(encode) -> None:
    line = encode(_record(path=HOSTILE))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert "\x9b".encode() not in line


def test_console_line_reads_well() -> None:
    line = encode_console(
        _record(
            client="192.0.2.1:5000",
            status=502,
            outcome="origin_error:connect",
            server="127.0.0.1:80",
            smoothed_rtt=0.0251,
            congestion_window=14720,
            packets_lost=2,
            connection_id="0011223344556677",
            stream_id=4,
        )
    )
    assert line == (
        b"03:04:05.678 192.0.2.1:5000 GET example.com/ 502 12B 12.3ms origin_error:connect "
        b"origin=127.0.0.1:80 rtt=25.1ms cwnd=14.7kB lost=2 conn=00112233/4\n"
    )
