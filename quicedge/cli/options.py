"""Options shared by `serve` and `check`, and the resulting configuration."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from quicedge.config import devcerts
from quicedge.config.limits import MAX_WORKERS
from quicedge.config.loader import ConfigError, config_from_options, load_config
from quicedge.config.schema import Certificate, Config

DEVELOPMENT_PORT = 4433


def development_listen(port: int = DEVELOPMENT_PORT) -> list[str]:
    """The available loopback addresses; containers often lack IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return [f"127.0.0.1:{port}", f"[::1]:{port}"]
    return [f"127.0.0.1:{port}"]


class Refused(click.ClickException):
    """An invalid configuration."""

    exit_code = 2


@dataclass(frozen=True)
class Options:
    """A configuration file, or what to serve without one."""

    path: str | None = None
    upstream: str | None = None
    root: str | None = None
    listen: tuple[str, ...] = ()
    workers: int | None = None
    admin: str | None = None


def config_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--upstream` and `--root`, with their options; a command gets `Options`."""

    @functools.wraps(run)
    def command(
        path: str | None,
        upstream: str | None,
        root: str | None,
        listen: tuple[str, ...],
        workers: int | None,
        admin: str | None,
        **others: Any,
    ) -> Any:
        return run(Options(path, upstream, root, listen, workers, admin), **others)

    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1, MAX_WORKERS),
            help="Number of worker processes [default: 1].",
        ),
        click.option(
            "--listen",
            multiple=True,
            metavar="ADDRESS",
            help=f"Address, host:port or [v6]:port, for UDP and TCP (repeatable) "
            f"[default: loopback, port {DEVELOPMENT_PORT}].",
        ),
        click.option(
            "--admin",
            metavar="ADDRESS",
            help="Address of the admin API, host:port or unix:/path [default: 127.0.0.1:4480].",
        ),
        click.option("--root", metavar="DIRECTORY", help="Serve static files from this directory."),
        click.option(
            "--upstream",
            metavar="URL",
            help="Serve this origin without a configuration file: http://127.0.0.1:8000, "
            "https://host or unix:/path.",
        ),
        click.option(
            "-c", "--config", "path", metavar="FILE", help="Configuration file, quicedge.toml."
        ),
    ):
        command = option(command)
    return command


def make_config(options: Options, *, machine: bool = True) -> Config:
    """The configuration selected by the options; raises click.ClickException with exit code 2.

    For `machine` see `load_config`.
    """
    path = options.path
    if sum(option is not None for option in (path, options.upstream, options.root)) != 1:
        raise click.UsageError("specify one of --config FILE, --upstream URL and --root DIRECTORY")
    try:
        if path is None:
            return config_from_options(
                options.upstream,
                root=options.root,
                listen=list(options.listen) or development_listen(),
                workers=options.workers,
                admin=options.admin,
            )
        if options.listen or options.workers or options.admin:
            raise click.UsageError(
                "--listen, --workers and --admin cannot be combined with --config"
            )
        return load_config(path, machine=machine)
    except ConfigError as error:
        raise _refused(str(error)) from error
    except OSError as error:
        raise _refused(f"{path}: {error.strerror}") from error


def with_certificate(config: Config) -> tuple[Config, devcerts.DevCertificate | None]:
    """Add the development certificate to a configuration without certificates."""
    if config.tls.certificates:
        return config, None
    files = devcerts.ensure()
    certificate = Certificate(cert=str(files.cert.absolute()), key=str(files.key.absolute()))
    tls = msgspec.structs.replace(config.tls, certificates=[certificate])
    return msgspec.structs.replace(config, tls=tls), files


def _refused(message: str) -> click.ClickException:
    return Refused(message)
