"""What the command line says to mistakes: one line that names the place, never a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from quicedge.cli import main
from quicedge.cli.options import development_listen

TRACE = "trace.qlog"
"""Stands for a small trace."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top", "--once", "--admin", "127.0.0.1:9"], "Connection refused; is the edge running?"),
        (["top", "--once", "--admin", "unix:/no/such"], "is the edge running?"),
        (["serve"], "specify one of --config FILE"),
        (["serve", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (["serve", "--upstream", "8000"], "--upstream: '8000': expected"),
        (["check", "--config", "/"], "/: Is a directory"),
        (["certs", "--directory", "/dev/null"], "/dev/null: File exists"),
        (["certs", "--directory", "/dev/null/x"], "/dev/null/x: Not a directory"),
        (["certs", "--host", ""], "'' is empty"),
        (["certs", "--host", "https://a.example/"], "is a URL; write 'a.example'"),
        (["certs", "--host", "bücher.example"], "write 'xn--bcher-kva.example'"),
        (["demo", "--port", "70000"], "is not in the range"),
        (["top", "--token-file", "/bin/true"], "/bin/true: contains no token"),
        (["qlog", "stats", "/bin/true"], "contains no qlog events"),
        (["qlog", "report", "-o", "/no/such.html", TRACE], "Error: /no/such.html: No such file"),
        (["qlog", "report", "-o", "/dev/full", TRACE], "Error: No space left on device"),
        (["qlog", "plot", "-o", "/no/such.png", TRACE], "Error: /no/such.png: No such file"),
        (["qlog", "tail", "--admin", "127.0.0.1:9", "1a2b"], "is the edge running?"),
    ],
)
def test_a_mistake_is_reported_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    trace = tmp_path / TRACE
    event = {
        "time": 1.0,
        "name": "transport:packet_sent",
        "data": {"header": {"packet_type": "1RTT"}},
    }
    trace.write_text(json.dumps({"qlog_version": "0.3", "traces": [{"events": [event]}]}))
    result = CliRunner().invoke(main, [str(trace) if one == TRACE else one for one in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.split())


def typed_options(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Every option of every command that takes more than text, with a value that it cannot take."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from typed_options(command, (*path, name))
            continue
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag:
                continue
            kind = option.type
            is_read = isinstance(kind, click.File) or getattr(kind, "exists", False)
            if is_read or not isinstance(kind, click.types.StringParamType | click.Path):
                yield [*path, name, option.opts[-1], "/no/such thing"]


@pytest.mark.parametrize("arguments", list(typed_options(main)), ids=" ".join)
def test_an_option_that_cannot_take_a_value_says_so(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    (error,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert error.startswith("Error: Invalid value for ")
    assert f"'{arguments[-2]}'" in error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/a/file"), "/a/file: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(18, "Invalid cross-device link", "/a", None, "/b"), "/a: /b: Invalid"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "not utf-8 text (byte 0)"),
        (KeyError("x"), "KeyError: 'x' (QUICEDGE_DEBUG=1 shows where)"),
        (ValueError("of\nmany lines"), "ValueError: of many lines"),
    ],
)
def test_whatever_a_command_raises_is_one_line(monkeypatch, error: Exception, words: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("quicedge.cli.certs.devcerts.ensure", fail)
    result = CliRunner().invoke(main, ["certs"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert words in result.output
    assert len(result.output.splitlines()) == 1
    monkeypatch.setenv("QUICEDGE_DEBUG", "1")
    assert CliRunner().invoke(main, ["certs"]).exception is error


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
