"""What the command line says to mistakes: one line that names the place, never a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from quicedge.cli import main
from quicedge.cli.options import development_listen

URL = "https://127.0.0.1:4433/"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "-d", "@/no/such", URL], "-d @/no/such: No such file"),
        (["get", "-o", "/no/such/file", URL], "-o /no/such/file: No such file"),
        (["get", "--cacert", "/no/such", URL], "'/no/such' does not exist"),
        (["get", "http://127.0.0.1/"], "is no https URL"),
        (["get", "https://127.0.0.1:99999/"], "is no https URL"),
        (["get", "https://[::1/"], "is no https URL"),
        (["top", "--once", "--admin", "127.0.0.1:9"], "Connection refused; does the edge run?"),
        (["top", "--once", "--admin", "unix:/no/such"], "does the edge run?"),
        (["serve"], "give one of --config FILE"),
        (["serve", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (["serve", "--upstream", "8000"], "--upstream: '8000': expected"),
        (["check", "--config", "/"], "/: Is a directory"),
    ],
)
def test_a_mistake_is_told_in_words(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.split())


def test_a_port_where_nothing_listens_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    result = CliRunner().invoke(main, ["get", "-k", f"https://127.0.0.1:{port}/"])
    assert f"127.0.0.1: UDP port {port}: Connection refused" in result.output


def test_the_certificate_comes_with_what_a_browser_must_be_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["certs", "--directory", str(tmp_path)])
    pin = next(line.split()[-1] for line in result.output.splitlines() if "SPKI" in line)
    assert f"--ignore-certificate-errors-spki-list={pin}\n" in result.output


def test_without_ipv6_development_makes_do_with_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    assert development_listen()[0] == "127.0.0.1:4433"

    def refuse(*args: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert development_listen() == ["127.0.0.1:4433"]
