"""`quicedge migrate`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli.migrate import command
from tests.support.migrated import site

pytest.importorskip("crossplane")

SITE = site("location / { proxy_pass http://127.0.0.1:8000; }\nlua_code_cache on;")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "nginx.conf"
    path.write_text(SITE)
    return path


def test_the_configuration_is_printed_and_the_report_goes_to_standard_error(source: Path) -> None:
    result = CliRunner().invoke(command, [str(source)])
    assert result.exit_code == 0
    found = tomllib.loads(result.stdout)
    assert found["upstreams"]["local-8000"]["servers"] == ["http://127.0.0.1:8000"]
    assert f"! {source}:10: lua_code_cache on;  -> left out: no counterpart" in result.stderr


def test_a_file_is_never_overwritten_unless_forced(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "quicedge.toml"
    output.write_text("mine")
    refused = CliRunner().invoke(command, [str(source), "-o", str(output)])
    assert refused.exit_code == 2
    assert "--force overwrites it" in refused.stderr
    assert output.read_text() == "mine"
    forced = CliRunner().invoke(command, [str(source), "-o", str(output), "--force"])
    assert forced.exit_code == 0
    assert tomllib.loads(output.read_text())["routes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nginx.conf", "quicedge.toml"]


def test_the_report_goes_to_a_file_as_json(source: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(command, [str(source), "--json", "--report", str(report)])
    assert result.exit_code == 0
    lines = json.loads(report.read_text())["lines"]
    assert [line["line"] for line in lines] == [1, 2, 4, 5, 6, 7, 8, 9, 9, 10]
    assert "directives" in result.stderr


def test_nothing_is_written_when_the_source_is_wrong(tmp_path: Path) -> None:
    source, output = tmp_path / "nginx.conf", tmp_path / "quicedge.toml"
    source.write_text("http {\n  server { listen 80 }\n}\n")
    result = CliRunner().invoke(command, [str(source), "-o", str(output)])
    assert result.exit_code == 2
    assert f"Error: {source}:" in result.stderr
    assert not output.exists()
