"""`quicedge certs`: the certificates of an edge, and those for development."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import click
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from quicedge.acme.status import AcmeStatus, HostStatus
from quicedge.admin.command_messages import Command
from quicedge.admin.view import CertificateStatus
from quicedge.cli.command_client import ask, control_options, show
from quicedge.cli.options import DEVELOPMENT_PORT
from quicedge.config import devcerts
from quicedge.config.hostnames import host_problem


class _Host(click.ParamType):
    """A host name, a wildcard or an IP address that a certificate can cover."""

    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        problem = host_problem(value.removeprefix("*."))
        if problem:
            self.fail(f"{value!r} {problem}", param, ctx)
        return value


_directory = click.option(
    "--directory",
    default=devcerts.DIRECTORY,
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory of the development certificate.",
)


@click.group(invoke_without_command=True)
@_directory
@click.option(
    "--host",
    "hosts",
    multiple=True,
    type=_Host(),
    help="Additional name or address to cover, besides localhost (repeatable).",
)
@click.pass_context
def command(context: click.Context, directory: str, hosts: tuple[str, ...]) -> None:
    """List, renew and import the certificates of an edge, and trust its development CA.

    Without a command: create the development certificate if necessary, and show it.
    """
    if context.invoked_subcommand is None:
        _show_development(directory, hosts)


def _show_development(directory: str, hosts: tuple[str, ...]) -> None:
    files = devcerts.ensure(directory, (*devcerts.DEFAULT_HOSTS, *hosts))
    leaf = x509.load_pem_x509_certificates(files.cert.read_bytes())[0]
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for name, value in (
        ("certificate", files.cert),
        ("key", files.key),
        ("CA to trust", files.ca),
        ("covers", ", ".join(str(entry.value) for entry in san)),
        ("expires", leaf.not_valid_after_utc.date()),
        ("SHA-256", leaf.fingerprint(hashes.SHA256()).hex(":")),
        ("SPKI SHA-256", devcerts.spki_sha256(files.cert)),
    ):
        click.echo(f"{name + ':':<14} {value}")
    click.echo(
        f"Chromium:      --origin-to-force-quic-on=localhost:{DEVELOPMENT_PORT} "
        f"--ignore-certificate-errors-spki-list={devcerts.spki_sha256(files.cert)}"
    )


@command.command("list")
@control_options
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def list_certificates(config: str | None, path: str | None, as_json: bool) -> None:
    """Show the certificates of a running edge, when they expire, and what is wrong."""
    status = ask(Command.STATUS, config, path).data
    acme = msgspec.convert(status["acme"], AcmeStatus | None)
    if as_json:
        found: dict[str, Any] = {"certificates": status["certificates"], "acme": status["acme"]}
        click.echo(msgspec.json.encode(found).decode())
        return
    now = time.time()
    by_acme = set() if acme is None else {f"acme:{one.host}" for one in acme.hosts}
    for item in msgspec.convert(status["certificates"], list[CertificateStatus]):
        if item.file not in by_acme:
            click.echo(f"{item.file}: {', '.join(item.names)}; {_expiry(item.not_after, now)}")
    if acme is None:
        return
    for one in acme.hosts:
        for text in _lines(one, now):
            click.echo(text)
    for issuer in acme.issuers:
        if issuer.error is not None:
            click.echo(f"{issuer.directory}: {issuer.error}")
    if acme.storage_error is not None:
        click.echo(f"storage: {acme.storage_error}")


def _lines(one: HostStatus, now: float) -> list[str]:
    """What there is to say about a name."""
    if one.not_after is None:
        first = f"{one.host}: no certificate yet"
    else:
        renewal = "" if one.renew_at is None else f", renewed {_moment(one.renew_at)}"
        first = f"{one.host}: by {one.issuer or 'import'}; {_expiry(one.not_after, now)}{renewal}"
    found = [first + (", being ordered now" if one.ordering else "")]
    if one.failing_since is not None:
        again = "" if one.next_attempt is None else f"; next attempt {_moment(one.next_attempt)}"
        found.append(f"  failing since {_moment(one.failing_since)}: {one.error}{again}")
    return found


def _expiry(not_after: float, now: float) -> str:
    word = "expired" if not_after <= now else "expires"
    return f"{word} {_moment(not_after)}"


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


@command.command("renew")
@click.argument("hosts", nargs=-1, type=_Host())
@control_options
def renew(hosts: tuple[str, ...], config: str | None, path: str | None) -> None:
    """Have a running edge order certificates by ACME now: for HOSTS, or for all.

    Delays after failures are forgotten, those that an issuer asked for are not.
    """
    show(ask(Command.RENEW, config, path, [host.lower() for host in hosts]))


@command.command("import")
@click.option("-c", "--config", "config", metavar="FILE", required=True, help="Configuration file.")
@click.argument("cert", type=click.Path(dir_okay=False, exists=True))
@click.argument("key", type=click.Path(dir_okay=False, exists=True))
def import_certificate(config: str, cert: str, key: str) -> None:
    """Take over the certificate CERT with its KEY, as PEM files, into the storage of [tls.acme].

    For each of the configured hosts that it covers; a running edge serves it within seconds, and
    renews it when it is due.
    """
    from quicedge.cli.import_certificate import import_files

    for host in import_files(config, Path(cert), Path(key)):
        click.echo(f"imported for {host}")


@command.command("trust")
@_directory
def trust(directory: str) -> None:
    """Have the system and the browsers of this user trust the development CA.

    It is made if it does not exist. Firefox and Chromium need `certutil` (libnss3-tools), the
    system needs root. `untrust` takes it back.
    """
    files = devcerts.ensure(directory)
    _change_stores(files.ca, add=True)


@command.command("untrust")
@_directory
def untrust(directory: str) -> None:
    """Undo `trust`, in all stores that have the development CA."""
    _change_stores(Path(directory) / "ca.pem", add=False)


def _change_stores(path: Path, *, add: bool) -> None:
    """Change all stores; exits with 1 if one could not be changed, or there is none."""
    from quicedge.cli.trust_stores import TrustError, authority, trust_stores

    try:
        ca = authority(path)
    except TrustError as error:
        raise click.ClickException(str(error)) from error
    failed, found = False, False
    for store in trust_stores(Path.home()):
        found, is_error = True, False
        try:
            if store.has(ca) == add:
                text = "trusted already" if add else "not trusted"
            else:
                (store.add if add else store.remove)(ca)
                text = "trusted" if add else "no longer trusted"
        except TrustError as error:
            failed, is_error, text = True, True, str(error)
        click.echo(f"{store.title}: {text}", err=is_error)
    if not found:
        raise click.ClickException("no trust store is known here; install libnss3-tools")
    if failed:
        raise click.exceptions.Exit(1)
