"""Certificates made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from quicedge.quic.tls import ServerCertificate, load_certificate


def write_certificate(
    directory: Path,
    *names: str,
    kind: Literal["ecdsa", "rsa"] = "ecdsa",
    stem: str = "cert",
    expires: datetime.datetime | None = None,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    issuer: str | None = None,
) -> tuple[Path, Path]:
    """Write a self-signed certificate for `names` and its key; returns both paths.

    `issuer` names another issuer, whose signature it does not bear.
    """
    key = key or (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ecdsa"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(
            subject
            if issuer is None
            else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
        )
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Of the usual three months, so that five days are few.
        .not_valid_before(now - datetime.timedelta(days=80))
        .not_valid_after(expires or now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / f"{stem}.pem", directory / f"{stem}.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def make_certificate(*names: str, kind: Literal["ecdsa", "rsa"] = "ecdsa") -> ServerCertificate:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return load_certificate(*write_certificate(Path(directory), *names, kind=kind))
