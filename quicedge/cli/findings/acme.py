"""Whether certificates can be ordered by ACME, and which there are."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from quicedge.acme.issuers import IssuerKeyError, issuers_of
from quicedge.acme.names import wanted
from quicedge.acme.records import Records
from quicedge.acme.storage import StorageError
from quicedge.cli.findings.finding import Finding, Level
from quicedge.cli.findings.state import is_new
from quicedge.config.certificate_files import certificate_files
from quicedge.config.host_port import HostPort
from quicedge.config.listeners import HTTP_PORT, HTTPS_PORT, listeners, redirecting
from quicedge.config.schema import Acme, Config
from quicedge.quic.tls import CertificateError, read_certificate, validity
from quicedge.supervisor.acme_plan import AcmeError, open_storage
from quicedge.supervisor.state import StateError, open_state


def of_config(config: Config) -> Iterator[Finding]:
    """Check issuers, ports and storage, and the certificate of every host."""
    acme = config.tls.acme
    if acme is None:
        return
    try:
        for issuer in issuers_of(acme):
            yield Finding(Level.OK, "tls.acme", f"orders from {issuer.directory}")
    except IssuerKeyError as error:
        yield Finding(Level.ERROR, "tls.acme", str(error))
    yield from _ports(config, acme)
    if acme.storage is None and is_new(config):
        return
    try:
        state = open_state(config)
        storage = open_storage(acme, None if state is None else state.path)
        try:
            yield from _certificates(config, Records(storage))
        finally:
            storage.close()
    except (AcmeError, StateError, StorageError) as error:
        yield Finding(
            Level.ERROR, "tls.acme", str(error).removeprefix("tls.acme: "),
            'set state_directory = "/var/lib/quicedge", and create it for the supervisor\'s user',
        )  # fmt: skip


def _ports(config: Config, acme: Acme) -> Iterator[Finding]:
    """Issuers connect to the usual ports, and to no others."""
    if acme.dns_command:
        return
    served = {
        "http-01": (HTTP_PORT, [item.address for item in redirecting(config)]),
        "tls-alpn-01": (
            HTTPS_PORT, [item.address for item in listeners(config) if item.tcp_protocols],
        ),
    }  # fmt: skip
    for challenge in acme.challenges:
        port, addresses = served[challenge]
        if not any(HostPort.parse(address).port == port for address in addresses):
            yield Finding(
                Level.WARNING, f"tls.acme {challenge}",
                f"the edge does not listen on TCP port {port}, where issuers connect to",
                f"forward port {port} to it, listen there, or leave {challenge} out of challenges",
            )  # fmt: skip


def _certificates(config: Config, records: Records) -> Iterator[Finding]:
    for host in wanted(config, _covered(config)):
        subject = f"certificate of {host}"
        try:
            pem, record = records.certificate(host), records.host(host)
        except StorageError as error:
            yield Finding(Level.ERROR, subject, str(error), "remove it; a new one is ordered")
            continue
        if record.error is not None:
            yield Finding(Level.ERROR, subject, record.error, f"quicedge certs renew {host}")
        if pem is None:
            yield Finding(Level.OK, subject, "is ordered when the edge runs")
        else:
            expires = datetime.datetime.fromtimestamp(validity(pem).not_after, datetime.UTC)
            yield Finding(Level.OK, subject, f"valid until {expires:%Y-%m-%d}")


def _covered(config: Config) -> set[str]:
    """The names of the operator's own certificates; others report those that cannot be read."""
    names: set[str] = set()
    for files in certificate_files(config.tls):
        try:
            names |= validity(read_certificate(files.cert, files.key, private=False)).names
        except (CertificateError, ValueError):
            continue
    return names
