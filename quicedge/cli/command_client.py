"""Sends commands to a running edge on its control socket."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from quicedge.admin.command_messages import Command, CommandReply, CommandRequest
from quicedge.cli.options import Options, make_config
from quicedge.config.control_path import known_paths
from quicedge.config.schema import Config

F = TypeVar("F", bound=Callable[..., Any])


def control_options(command: F) -> F:
    """Add the options that name a running edge."""
    command = click.option(
        "--socket", "path", metavar="PATH", help="Control socket of the edge (`control_socket`)."
    )(command)
    return click.option(
        "-c", "--config", metavar="FILE",
        help="Configuration file of the edge, which says where its control socket is.",
    )(command)  # fmt: skip


def ask(
    command: Command,
    config: str | None,
    path: str | None,
    arguments: Iterable[str] = (),
    *,
    until_end: bool = False,
) -> CommandReply:
    """The edge's reply; raises click.ClickException when it refuses or cannot be reached.

    `until_end`: return only when the edge has ended.
    """
    with _connect(config, path) as edge, edge.makefile("rb") as answer:
        edge.sendall(msgspec.json.encode(CommandRequest(command, list(arguments))) + b"\n")
        line = answer.readline()
        if not line:
            raise click.ClickException("the edge closed the connection; see its log")
        try:
            reply = msgspec.json.decode(line, type=CommandReply)
        except msgspec.MsgspecError as error:
            raise click.ClickException(f"the edge sent something else: {error}") from error
        if reply.error is not None:
            raise click.ClickException(reply.error)
        if until_end:
            while answer.read(1):
                pass
    return reply


def show(reply: CommandReply, *, as_json: bool = False) -> None:
    """Print a reply."""
    if as_json:
        click.echo(json.dumps(reply.data))
    for line in [] if as_json else reply.lines:
        click.echo(line)


@contextlib.contextmanager
def _connect(config: str | None, path: str | None) -> Iterator[socket.socket]:
    tried = []
    for candidate in [Path(path)] if path is not None else _paths(config):
        edge = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            edge.connect(str(candidate))
        except OSError as error:
            edge.close()
            tried.append(f"{candidate}: {error.strerror or error}")
            continue
        with edge:
            yield edge
        return
    found = f"no running edge found ({'; '.join(tried)}); name it with --config or --socket"
    if path is None and config is not None and (unreadable := _unreadable(config)) is not None:
        # Where the socket is, it might have said.
        found = f"{config}: {unreadable}; {found}"
    raise click.ClickException(found)


def _paths(config: str | None) -> list[Path]:
    """Where the socket may be. A file that has become invalid must not stop `quicedge stop`."""
    if config is None:
        return list(known_paths(Config(), None))
    try:
        found = make_config(Options(config), machine=False)
    except click.ClickException:
        found = _control_keys(config)
    return list(known_paths(found, config))


def _unreadable(path: str) -> str | None:
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _control_keys(path: str) -> Config:
    """The keys that say where the socket is, of a file whose others are wrong."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return Config()
    directory = Path(path).parent

    def at(key: str) -> str | None:
        # Not by a parser of TOML: the file may be none.
        found = re.search(rf"""^{key}\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
        return str((directory / found[1]).absolute()) if found else None

    return Config(control_socket=at("control_socket"), state_directory=at("state_directory"))
