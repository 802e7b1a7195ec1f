"""Terminal output of traces: lines, pages, and escaping of hostile content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quicedge.cli.qlog import command
from quicedge.qlog import units
from quicedge.qlog.analyse import analyse
from quicedge.qlog.diff import compare, ends, same_connection
from quicedge.qlog.event import Event
from quicedge.qlog.show import Filter, as_json, line
from tests.support.qlogtraces import draft_12, lossy, sequential, transfer


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return lossy().write(tmp_path)


def event(name: str, **data: Any) -> Event:
    return Event(12.5, name, data, original=name)


def test_a_packet_on_a_line() -> None:
    told = line(
        event(
            "quic:packet_sent",
            header={"packet_type": "1RTT", "packet_number": 42},
            raw={"length": 1200},
            frames=[
                {"frame_type": "ack", "acked_ranges": [[0, 5], [9]]},
                {"frame_type": "stream", "stream_id": 4, "offset": 10, "fin": True,
                 "raw": {"payload_length": 100}},
                {"frame_type": "padding"}, {"frame_type": "padding"},
            ],
        )
    )  # fmt: skip
    assert "12.500" in told
    assert "1RTT  42  1200 B  [ack 0-9 (2 ranges), stream 4 @10+100 fin, padding ×2]" in told


def test_nothing_from_a_trace_commands_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\x9b31m\nsecond line"
    records = draft_12(transfer(sizes=(3000,), loss=0).server, title=evil)
    records[0]["trace"]["common_fields"]["group_id"] = evil
    records += [
        {"time": 900, "name": evil, "data": {evil: evil}},
        {"time": 900, "name": "http3:frame_parsed",
         "data": {"stream_id": 0, "frame": {"frame_type": "headers",
                  "headers": [{"name": ":path", "value": evil}]}}},
        {"time": 901, "name": "quic:congestion_state_updated", "data": {"new": evil}},
        {"time": 902, "name": "quic:packet_dropped", "data": {"trigger": evil}},
        {"time": 903, "name": "quic:connection_closed",
         "data": {"reason": evil, "trigger": evil, "connection_error": evil}},
    ]  # fmt: skip
    path = tmp_path / "evil.sqlog"
    path.write_bytes(sequential(records))
    for arguments in (
        ("show", path), ("show", path, "--json"), ("stats", path), ("diff", path, path),
        ("validate", path), ("stats", path, "-c", "nothing"),
    ):  # fmt: skip
        output = run(*arguments).output
        assert "owned" in output, arguments
        for character in "\x1b\x07\x9b\u202e":
            assert character not in output, (arguments, character)
        assert "\nsecond line" not in output


def test_filters(paths: tuple[Path, Path]) -> None:
    _, server = paths

    def names(*arguments: str) -> list[str]:
        output = run("show", server, "--json", *arguments).output
        return [json.loads(text)["name"] for text in output.splitlines()]

    assert set(names("-t", "packet_lost")) == {"quic:packet_lost"}
    assert len(names("-t", "packet_lost")) == lossy().datagrams_lost
    assert set(names("-t", "http3:*")) == {
        "http3:stream_type_set", "http3:frame_created", "http3:frame_parsed"
    }  # fmt: skip
    assert set(names("-t", "recovery:*")) == {"quic:packet_lost", "quic:recovery_metrics_updated"}
    assert len(names("-n", "7")) == 7
    early = run("show", server, "--json", "--from", "0.1s", "--to", "150ms").output
    times = [json.loads(text)["time"] for text in early.splitlines()]
    assert times
    assert all(100 <= time <= 150 for time in times)


def test_filter_by_packet_and_stream() -> None:
    ack = event("quic:packet_received", frames=[{"frame_type": "ack", "acked_ranges": [[3, 7]]}])
    data = event(
        "quic:packet_sent",
        header={"packet_number": 5},
        frames=[{"frame_type": "stream", "stream_id": 8}],
    )
    assert Filter(packet=5)(ack)
    assert Filter(packet=5)(data)
    assert not Filter(packet=8)(ack)
    assert Filter(stream=8)(data)
    assert not Filter(stream=5)(data)


def test_json_of_what_json_cannot_hold() -> None:
    odd = event("quic:packet_sent", message="\ud800 \x7f \u202e", number=2**70)
    text = as_json(odd)
    assert text.isprintable()
    assert json.loads(text)["name"] == "quic:packet_sent"


def test_stats_count_what_happened(paths: tuple[Path, Path]) -> None:
    client, server = paths
    page = run("stats", server).output
    for told in ("congestion window", f"{lossy().datagrams_lost} packets lost", "Mbit/s",
                 "GET /file2 200", "What limited it (sending)"):  # fmt: skip
        assert told in page, told
    assert "by this side, 0x100, done" in run("stats", client).output
    facts = json.loads(run("stats", "--json", client).output)
    assert facts["vantage_point"] == "client"
    assert facts["broken"] == []


def test_stats_of_a_broken_file_say_where(tmp_path: Path) -> None:
    whole = json.dumps(lossy().server)
    path = tmp_path / "cut.qlog"
    path.write_text(whole[: len(whole) // 2])
    page = run("stats", path)
    assert page.exit_code == 0
    assert "1 parse error" in page.output
    assert "byte" in page.output


def test_no_qlog_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    for arguments in (
        ("stats", path),
        ("diff", path, path),
        ("report", path, "-o", tmp_path / "r"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "contains no qlog events: byte 0" in result.output
    assert run("validate", path).exit_code == 1
    assert run("stats", tmp_path / "missing").exit_code == 2
    assert run("show", path, "--from", "soon").exit_code == 2


def test_diff_of_both_ends(paths: tuple[Path, Path]) -> None:
    client, server = (analyse(path).main for path in paths)
    assert client is not None
    assert server is not None
    assert same_connection(client, server)
    assert not same_connection(client, client)
    lost = lossy().datagrams_lost
    assert f"{lost} lost or dropped on the way" in ends(client, server)[1]
    assert f"the sender declared {lost} lost" in ends(client, server)[1]
    output = run("diff", *paths).output
    assert "Both ends of one connection" in output


def test_diff_of_two_runs(tmp_path: Path) -> None:
    connections = []
    for name, loss in (("clean", 0.0), ("lossy", 0.05)):
        (tmp_path / name).mkdir()
        done = transfer(sizes=(200_000,), loss=loss, seed=3)
        found = analyse(done.write(tmp_path / name)[1]).main
        assert found is not None
        connections.append(found)
    rows = {row.name: row for row in compare(*connections)}
    assert rows["packets lost"].first == 0
    assert rows["packets lost"].second > 0
    assert rows["duration"].second > rows["duration"].first
    assert rows["duration"].change[0] in "+×"
    assert rows["stream bytes sent"].change == ""
    paths = [tmp_path / name / "server.qlog" for name in ("clean", "lossy")]
    data = json.loads(run("diff", *paths, "--json").output)
    assert data["same_connection"] is False


def test_validate_command(paths: tuple[Path, Path], tmp_path: Path) -> None:
    client, _ = paths
    result = run("validate", client)
    assert result.exit_code == 0
    assert "conforms" in result.output
    bad = tmp_path / "bad.sqlog"
    records = draft_12(lossy().client)
    del records[5]["data"]
    bad.write_bytes(sequential(records))
    assert run("validate", bad).exit_code == 1
    assert json.loads(run("validate", bad, "--json").output)["errors"] >= 1


def test_units() -> None:
    assert units.milliseconds(None) == "–"
    assert [units.milliseconds(value) for value in (0.84, 41.2, 412.3, 2150)] == [
        "0.8 ms", "41.2 ms", "412 ms", "2.15 s"
    ]  # fmt: skip
    assert [units.size(value) for value in (12, 1234, 700_000, 1_500_000)] == [
        "12 B", "1.23 kB", "700 kB", "1.50 MB"
    ]  # fmt: skip
    assert units.rate(1_250_000, 1000) == "10 Mbit/s"
    assert units.percent(1, 37) == "2.7 %"
    assert units.safe("a\x1bb") == "a\\x1bb"
