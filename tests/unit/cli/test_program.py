"""The program itself: what service managers run starts without the command line's parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quicedge.config import devcerts
from quicedge.program import config_alone

RUN = """
import sys
import quicedge.supervisor
def run(config, path):
    print(path, [route.upstream for route in config.routes], "click" in sys.modules)
    {ending}
quicedge.supervisor.run = run
from quicedge.program import main
main()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program")
    devcerts.ensure(path)
    return path


def config(directory: Path, *, certificate: bool = True) -> Path:
    files = devcerts.ensure(directory)
    path = directory / "quicedge.toml"
    path.write_text(
        '[upstreams.app]\nservers = ["http://127.0.0.1:9"]\n[[routes]]\nupstream = "app"\n'
        + (f'[[tls.certificates]]\ncert = "{files.cert}"\nkey = "{files.key}"\n') * certificate
    )
    return path


def quicedge(
    *arguments: object, ending: str = "return 0", cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN.format(ending=ending), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


@pytest.mark.parametrize("option", ["-c", "--config"])
def test_a_configuration_alone_is_served_without_the_command_line(
    directory: Path, option: str
) -> None:
    path = config(directory)
    done = quicedge("serve", option, path, ending="return 3", cwd=directory)
    assert (done.returncode, done.stdout) == (3, f"{path} ['app'] False\n"), done.stderr


@pytest.mark.parametrize("option", ["--config={}", "-c{}"])
def test_other_ways_to_say_the_same_are_parsed(directory: Path, option: str) -> None:
    path = config(directory)
    done = quicedge("serve", option.format(path), cwd=directory)
    assert (done.returncode, done.stdout) == (0, f"{path} ['app'] True\n"), done.stderr


def test_without_a_certificate_the_command_line_makes_one(directory: Path) -> None:
    path = config(directory, certificate=False)
    done = quicedge("serve", "--config", path, cwd=directory)
    assert (done.returncode, done.stdout) == (0, f"{path} ['app'] True\n")
    assert "development certificate" in done.stderr


def test_mistakes_are_explained_by_the_command_line(directory: Path) -> None:
    path = config(directory)
    path.write_text(path.read_text() + "[nonsense]\n")
    done = quicedge("serve", "--config", path, cwd=directory)
    assert done.returncode == 2
    assert "quicedge.toml:8" in done.stderr
    missing = quicedge("serve", "--config", directory / "missing", cwd=directory)
    assert missing.returncode == 2
    assert "missing: No such file or directory" in missing.stderr


@pytest.mark.parametrize("form", ["--config", "--workers=1"])
def test_a_failure_is_one_line_in_either_way(directory: Path, form: str) -> None:
    arguments = ["--config", config(directory)] if form == "--config" else []
    arguments = arguments or ["--workers=1", "--upstream=http://127.0.0.1:9"]
    done = quicedge("serve", *arguments, ending="raise OSError(28, 'No space')", cwd=directory)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: No space"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["check", "--config", "x"], ["serve", "--config", "x", "--reload"]],
    ids=str,
)
def test_everything_else_is_the_command_lines(arguments: list[str]) -> None:
    assert config_alone(arguments) is None
