"""Authorities and revocation lists, as the supervisor reads them from files for the workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography import x509

from quicedge.config.limits import CLIENT_AUTH_SIZE, CLIENT_CRL_SIZE
from quicedge.config.pem import BEGIN, damage
from quicedge.config.schema import ClientAuthMode, Tls

_CRL = b"-----BEGIN X509 CRL-----"


class ClientAuthError(ValueError):
    """Files that cannot be used; the message names key and file."""


class ClientAuthPem(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `tls.client_auth` with the content of its files."""

    hosts: list[str]
    mode: ClientAuthMode
    ca: bytes
    """Certificates of authorities, PEM."""
    crl: bytes = b""
    """Revocation lists, PEM; empty: revocation is not looked at."""


def read_client_auth(tls: Tls) -> list[ClientAuthPem]:
    """The entries of the configuration, in its order; raises ClientAuthError."""
    found = []
    total = 0
    for index, entry in enumerate(tls.client_auth):
        where = f"tls.client_auth[{index}]"
        ca = _read(f"{where}.client_ca", entry.client_ca)
        crl = b"\n".join(_read(f"{where}.crl", name) for name in entry.crl)
        total += len(ca) + len(crl)
        if total > CLIENT_AUTH_SIZE:
            raise ClientAuthError(
                f"{where}: all files together are larger than {CLIENT_AUTH_SIZE} bytes"
            )
        pem = ClientAuthPem(hosts=entry.hosts, mode=entry.mode, ca=ca, crl=crl)
        authorities = _authorities(f"{where}.client_ca: {entry.client_ca}", ca)
        if entry.crl:
            _check_lists(f"{where}.crl", entry.crl, authorities, crl)
        found.append(pem)
    return found


def crls_of(pem: bytes) -> list[x509.CertificateRevocationList]:
    """All revocation lists in a file; raises ValueError."""
    return [x509.load_pem_x509_crl(_CRL + part) for part in pem.split(_CRL)[1:]]


def _read(key: str, name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            data = file.read(CLIENT_CRL_SIZE + 1)
    except OSError as error:
        raise ClientAuthError(f"{key}: {name}: {error.strerror}") from error
    if len(data) > CLIENT_CRL_SIZE:
        raise ClientAuthError(f"{key}: {name}: is larger than {CLIENT_CRL_SIZE} bytes")
    return data


def _authorities(where: str, pem: bytes) -> list[x509.Certificate]:
    if BEGIN not in pem:
        raise ClientAuthError(f"{where}: holds no PEM certificate")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ClientAuthError(f"{where}: {damage(pem)}") from error
    for certificate in found:
        if not _is_authority(certificate):
            raise ClientAuthError(
                f"{where}: {certificate.subject.rfc4514_string()} is no certificate authority "
                "(no basicConstraints with CA:TRUE)"
            )
    return found


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check_lists(
    where: str, names: Iterable[str], authorities: list[x509.Certificate], pem: bytes
) -> None:
    """Every authority must have a list: clients of one without would all be refused."""
    try:
        lists = crls_of(pem)
    except ValueError as error:
        raise ClientAuthError(f"{where}: {', '.join(names)}: {error}") from error
    if not lists:
        raise ClientAuthError(f"{where}: {', '.join(names)}: holds no PEM revocation list")
    issuers = {item.issuer for item in lists}
    for authority in authorities:
        for name in (authority.subject, authority.issuer):
            if name not in issuers:
                raise ClientAuthError(
                    f"{where}: no revocation list of {name.rfc4514_string()}, so that all its "
                    "clients would be refused; add one, which may be empty"
                )
