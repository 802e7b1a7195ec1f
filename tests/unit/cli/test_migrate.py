"""`quicedge migrate`."""

from __future__ import annotations

import json
import os
import stat
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


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_a_device_is_written_to_and_never_replaced(
    source: Path, tmp_path: Path, option: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        result = CliRunner().invoke(command, [str(source), option, str(pipe), "--force"])
        assert result.exit_code == 0
        assert b"127.0.0.1:8000" in os.read(reader, 65536)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_symbolic_link_stays_one_and_what_it_points_to_is_written(
    source: Path, tmp_path: Path
) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    link.symlink_to(real)
    assert CliRunner().invoke(command, [str(source), "-o", str(link)]).exit_code == 0
    assert link.is_symlink()
    assert tomllib.loads(real.read_text())["routes"]


def test_a_file_that_is_replaced_keeps_its_mode(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "quicedge.toml"
    output.touch(0o600)
    CliRunner().invoke(command, [str(source), "-o", str(output), "--force"])
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert output.read_text()


def test_a_new_file_has_the_mode_that_the_umask_leaves(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "quicedge.toml"
    mask = os.umask(0o027)
    try:
        CliRunner().invoke(command, [str(source), "-o", str(output)])
    finally:
        os.umask(mask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_a_file_that_is_replaced_is_opened_to_others_as_before(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "quicedge.toml"
    output.touch()
    output.chmod(0o664)
    CliRunner().invoke(command, [str(source), "-o", str(output), "--force"])
    assert stat.S_IMODE(output.stat().st_mode) == 0o664


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_the_source_is_never_overwritten(source: Path, option: str) -> None:
    result = CliRunner().invoke(command, [str(source), option, str(source), "--force"])
    assert result.exit_code == 2
    assert "is what is read" in result.stderr
    assert source.read_text() == SITE


def test_report_and_configuration_do_not_replace_each_other(source: Path, tmp_path: Path) -> None:
    same = str(tmp_path / "same")
    result = CliRunner().invoke(command, [str(source), "-o", same, "--report", same])
    assert result.exit_code == 2
    assert "are the same file" in result.stderr


def test_a_place_that_cannot_be_written_to_is_named_before_anything_is_done(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "missing" / "quicedge.toml"
    result = CliRunner().invoke(command, [str(source), "-o", str(output)])
    assert result.exit_code == 2
    assert f"{output.parent} is no directory" in result.stderr
    assert "translated" not in result.stderr


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
