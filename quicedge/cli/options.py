"""Options shared by `serve` and `check`, and the resulting configuration."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click
import msgspec

from quicedge.cli.refused import Refused
from quicedge.config import devcerts
from quicedge.config.certificate_files import has_certificates
from quicedge.config.control_path import user_state_directory
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


@dataclass(frozen=True)
class Options:
    """A configuration file, or what to serve without one."""

    path: str | None = None
    upstream: str | None = None
    root: str | None = None
    app: str | None = None
    wsgi: str | None = None
    app_directory: str | None = None
    listen: tuple[str, ...] = ()
    workers: int | None = None
    admin: str | None = None
    hosts: tuple[str, ...] = ()
    email: str | None = None
    agree_to_terms: bool = False
    staging: bool = False
    listing: bool = False
    spa: bool = False

    @property
    def acme(self) -> dict[str, Any] | None:
        """`[tls.acme]`; None: no certificate is ordered."""
        if self.email is None:
            return None
        keys = {
            "email": self.email,
            "agree_to_terms": self.agree_to_terms,
            "staging": self.staging,
        }
        return {key: value for key, value in keys.items() if value}


def config_options(run: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what is served and where; a command gets them as `Options`."""
    names = [item.name for item in fields(Options)]

    @functools.wraps(run)
    def command(**given: Any) -> Any:
        options = Options(**{name: given.pop(name) for name in names})
        return run(options, **given)

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
            f"[default: loopback, port {DEVELOPMENT_PORT}; with --email all, port 443].",
        ),
        click.option(
            "--staging", is_flag=True, help="With --email: order certificates to try it out."
        ),
        click.option(
            "--agree-to-terms",
            is_flag=True,
            help="With --email: accept the terms of service of Let's Encrypt.",
        ),
        click.option(
            "--email",
            metavar="ADDRESS",
            help="Order certificates for the hosts from Let's Encrypt, with this contact.",
        ),
        click.option(
            "--host",
            "hosts",
            multiple=True,
            metavar="NAME",
            help="With --email: serve this host (repeatable).",
        ),
        click.option(
            "--admin",
            metavar="ADDRESS",
            help="Address of the admin API, host:port or unix:/path [default: 127.0.0.1:4480].",
        ),
        click.option(
            "--spa",
            is_flag=True,
            help="With --root: serve /index.html for pages that do not exist.",
        ),
        click.option(
            "--listing", is_flag=True, help="With --root: list directories without an index."
        ),
        click.option(
            "--app-dir",
            "app_directory",
            metavar="DIRECTORY",
            help="Import the application from this directory [default: the current one].",
        ),
        click.option("--wsgi", metavar="NAME", help="Serve this WSGI application: module:app."),
        click.option(
            "--app",
            metavar="NAME",
            help="Serve this ASGI application: module:app, or module:factory().",
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
    served = (path, options.upstream, options.root, options.app, options.wsgi)
    if sum(option is not None for option in served) != 1:
        raise click.UsageError(
            "specify one of --config FILE, --upstream URL, --root DIRECTORY, --app NAME and "
            "--wsgi NAME"
        )
    if options.app_directory is not None and options.app is options.wsgi is None:
        raise click.UsageError("--app-dir requires --app or --wsgi")
    application = None
    if options.app is not None:
        application = ("asgi", options.app)
    elif options.wsgi is not None:
        application = ("wsgi", options.wsgi)
    if bool(options.hosts) != (options.email is not None):
        raise click.UsageError("--host and --email require each other")
    if options.email is None and (options.agree_to_terms or options.staging):
        raise click.UsageError("--agree-to-terms and --staging require --email")
    if options.root is None and (options.listing or options.spa):
        raise click.UsageError("--listing and --spa require --root")
    try:
        if path is None:
            acme = options.acme
            default = [] if acme is not None else development_listen()
            return config_from_options(
                options.upstream,
                root=options.root,
                application=application,
                app_directory=options.app_directory,
                listing=options.listing,
                spa=options.spa,
                listen=list(options.listen) or default,
                workers=options.workers,
                admin=options.admin,
                hosts=options.hosts,
                acme=acme,
                state_directory=None if acme is None else str(user_state_directory()),
            )
        if options.listen or options.workers or options.admin or options.hosts:
            raise click.UsageError(
                "--listen, --workers, --admin and --host cannot be combined with --config"
            )
        return load_config(path, machine=machine)
    except ConfigError as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from error


def with_certificate(config: Config) -> tuple[Config, devcerts.DevCertificate | None]:
    """Add the development certificate to a configuration without certificates."""
    if has_certificates(config.tls):
        return config, None
    files = devcerts.ensure()
    certificate = Certificate(cert=str(files.cert.absolute()), key=str(files.key.absolute()))
    tls = msgspec.structs.replace(config.tls, certificates=[certificate])
    return msgspec.structs.replace(config, tls=tls), files
