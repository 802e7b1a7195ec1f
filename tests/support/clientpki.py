"""A private authority and the certificates that it issues to clients."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def new_key(kind: str) -> Any:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind.startswith("secp"):
        return ec.generate_private_key(getattr(ec, kind.upper())())
    return {"ed25519": ed25519.Ed25519PrivateKey, "ed448": ed448.Ed448PrivateKey}[kind].generate()


def hash_for(key: Any) -> hashes.HashAlgorithm | None:
    return (
        None
        if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        else (hashes.SHA256())
    )


def name_of(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


@dataclass
class Certified:
    """A certificate with its key, and the authorities between it and the root."""

    certificate: x509.Certificate
    key: Any
    intermediates: Sequence[x509.Certificate] = ()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def chain(self) -> list[bytes]:
        """In DER, as a client sends it."""
        return [item.public_bytes(Encoding.DER) for item in (self.certificate, *self.intermediates)]

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """The chain and the key in files."""
        cert, key = directory / f"{stem}.pem", directory / f"{stem}.key"
        cert.write_bytes(
            self.pem + b"".join(item.public_bytes(Encoding.PEM) for item in self.intermediates)
        )
        key.touch(mode=0o600)
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert, key


def authority(
    common: str,
    issuer: Certified | None = None,
    *,
    path_length: int | None = None,
    kind: str = "secp256r1",
) -> Certified:
    """A root, or an authority below another."""
    key = new_key(kind)
    signer = issuer or Certified(None, key)  # type: ignore[arg-type]
    subject = name_of(common)
    builder = _builder(subject, issuer.certificate.subject if issuer else subject, key)
    builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    certificate = builder.sign(signer.key, hash_for(signer.key))
    intermediates = () if issuer is None else (certificate, *issuer.intermediates)
    return Certified(certificate, key, intermediates)


def client(
    common: str,
    issuer: Certified,
    *,
    kind: str = "secp256r1",
    age: int = 0,
    purposes: Iterable[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    names: Iterable[x509.GeneralName] = (),
    extensions: Iterable[x509.ExtensionType] = (),
) -> Certified:
    """What an authority issues to a client; `age`: the days since it has expired."""
    key = new_key(kind)
    builder = _builder(name_of(common), issuer.certificate.subject, key, age)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if names := list(names):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(issuer.key, hash_for(issuer.key))
    return Certified(certificate, key, issuer.intermediates)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, age: int = 0
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - (30 + age) * DAY)
        .not_valid_after(now - age * DAY if age else now + 30 * DAY)
    )


def revocation_list(issuer: Certified, *revoked: Certified, age: int = 0) -> bytes:
    """PEM; `age`: the days since the next one was due."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - (10 + age) * DAY)
        .next_update(now - age * DAY if age else now + 10 * DAY)
    )
    for item in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(item.certificate.serial_number)
            .revocation_date(now - DAY)
            .build()
        )
    return builder.sign(issuer.key, hash_for(issuer.key)).public_bytes(Encoding.PEM)
