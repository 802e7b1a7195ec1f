"""A development CA and leaf certificate, created on demand and reused while valid."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quicedge.config.atomic_files import atomic_write

CA_LIFETIME = datetime.timedelta(days=3650)
LEAF_LIFETIME = datetime.timedelta(days=90)
RENEW_BEFORE = datetime.timedelta(days=7)
DIRECTORY = "certs"
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")


class DevCertificate(NamedTuple):
    """The files of a development certificate."""

    cert: Path
    """Leaf, then CA (PEM)."""
    key: Path
    ca: Path
    """The CA that clients must trust."""


def ensure(
    directory: str | Path = DIRECTORY, hosts: tuple[str, ...] = DEFAULT_HOSTS
) -> DevCertificate:
    """The development certificate in `directory`, recreated when it is missing, about to expire
    or does not cover `hosts`."""
    directory = Path(directory)
    files = DevCertificate(directory / "dev.pem", directory / "dev.key", directory / "ca.pem")
    if not _is_good(files, hosts):
        directory.mkdir(parents=True, exist_ok=True)
        ca, ca_key = _authority(files.ca, directory / "ca.key")
        _make_leaf(files, hosts, ca, ca_key)
    return files


def issue_client(directory: Path, name: str) -> DevCertificate:
    """A certificate for a client, of the development CA in `directory`, made anew."""
    files = DevCertificate(directory / "client.pem", directory / "client.key", directory / "ca.pem")
    ca, ca_key = _authority(files.ca, directory / "ca.key")
    _make_leaf(files, (name,), ca, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH)
    return files


def self_signed(host: str) -> tuple[bytes, bytes]:
    """A certificate for one host that nobody trusts, and its key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _builder(name, name, key, LEAF_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_name(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def spki_sha256(cert: Path) -> str:
    """Base64 of the SHA-256 of the leaf's public key, in the format of
    Chromium's `--ignore-certificate-errors-spki-list`."""
    key = x509.load_pem_x509_certificates(cert.read_bytes())[0].public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _is_good(files: DevCertificate, hosts: tuple[str, ...]) -> bool:
    try:
        leaf, ca = x509.load_pem_x509_certificates(files.cert.read_bytes())[:2]
        leaf.verify_directly_issued_by(ca)
        trusted = x509.load_pem_x509_certificate(files.ca.read_bytes())
        key = load_pem_private_key(files.key.read_bytes(), None)
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        trusted == ca
        and key.public_key() == leaf.public_key()
        and leaf.not_valid_after_utc - _now() > RENEW_BEFORE
        and all(_name(host) in list(san) for host in hosts)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _authority(
    cert_file: Path, key_file: Path
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        ca = x509.load_pem_x509_certificate(cert_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
        if (
            isinstance(key, ec.EllipticCurvePrivateKey)
            and key.public_key() == ca.public_key()
            and ca.not_valid_after_utc - _now() > LEAF_LIFETIME
        ):
            return ca, key
    except (OSError, ValueError, TypeError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quicedge development CA")])
    ca = (
        _builder(name, name, key, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    _write(cert_file, ca.public_bytes(Encoding.PEM), 0o644)
    return ca, key


def _make_leaf(
    files: DevCertificate,
    hosts: tuple[str, ...],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    leaf = (
        _builder(subject, ca.subject, key, LEAF_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(files.key, key)
    chain = leaf.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)
    _write(files.cert, chain, 0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(hours=1))
        .not_valid_after(_now() + lifetime)
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with atomic_write(path, temporary, mode) as file:
        file.write(data)
