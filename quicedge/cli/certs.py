"""`quicedge certs`: the development certificate."""

from __future__ import annotations

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

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


@click.command()
@click.option(
    "--directory",
    default=devcerts.DIRECTORY,
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory of the files.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    type=_Host(),
    help="Additional name or address to cover, besides localhost (repeatable).",
)
def command(directory: str, hosts: tuple[str, ...]) -> None:
    """Create the development certificate if necessary, and show it."""
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
