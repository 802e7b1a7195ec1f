"""Takes over a certificate that another client has ordered."""

from __future__ import annotations

from pathlib import Path

import click

from quicedge.acme.names import wanted
from quicedge.acme.records import Records
from quicedge.acme.schedule import HostRecord
from quicedge.acme.storage import StorageError
from quicedge.cli.options import Options, make_config
from quicedge.quic.tls import CertificateError, parse_certificate, read_certificate
from quicedge.supervisor.acme_plan import AcmeError, open_storage
from quicedge.supervisor.state import StateError, open_state


def import_files(config_path: str, cert: Path, key: Path) -> list[str]:
    """The hosts that the certificate was stored for; raises click.ClickException."""
    config = make_config(Options(config_path))
    if config.tls.acme is None:
        raise click.ClickException(f"{config_path}: tls.acme is not configured")
    try:
        pem = read_certificate(cert, key)
        certificate = parse_certificate(pem)
        hosts = [host for host in wanted(config) if certificate.covers(host.replace("*", "any", 1))]
        if not hosts:
            names = ", ".join(sorted(certificate.names)) or "nothing"
            raise click.ClickException(f"{cert}: covers {names}, and no configured host")
        state = open_state(config)
        storage = open_storage(config.tls.acme, None if state is None else state.path)
        try:
            records = Records(storage)
            for host in hosts:
                records.put_certificate(host, pem.cert, pem.key)
                records.put_host(host, HostRecord())
        finally:
            storage.close()
    except (AcmeError, CertificateError, StateError, StorageError) as error:
        raise click.ClickException(str(error)) from error
    return hosts
