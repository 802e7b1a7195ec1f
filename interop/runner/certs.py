"""Certificates as the interop runner makes them: a P-256 chain and its root, good for ten days."""

from __future__ import annotations

import datetime
import secrets
import string
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.x509.oid import NameOID

SERVER_NAMES = ("server", "server4", "server6", "server46")
LIFETIME_DAYS = 10
RSA_BITS = 2048
# A chain made long on purpose also has these many names of this length in its leaf.
LONG_NAMES, LONG_NAME_LENGTH = 20, 250


def write_certificates(
    directory: Path, *, chain_length: int = 1, extra: tuple[str, ...] = (), rsa: bool = False
) -> None:
    """Write `cert.pem` (leaf first, without root), `priv.key` (SEC1, or PKCS #1 with an `rsa` leaf)
    and `ca.pem`."""
    directory.mkdir(parents=True, exist_ok=True)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = _name("quicedge interop root")
    root = _sign(root_name, root_key, root_name, root_key, ca=True)
    issuer_name, issuer_key = root_name, root_key
    chain: list[x509.Certificate] = []
    for index in range(1, chain_length):
        name, key = _name(f"quicedge interop intermediate {index}"), _new_key()
        chain.append(_sign(name, key, issuer_name, issuer_key, ca=True))
        issuer_name, issuer_key = name, key
    names = [*SERVER_NAMES, *extra]
    if chain_length > 1:
        names += [_random_name() for _ in range(LONG_NAMES)]
    leaf_key = generate_private_key(65537, RSA_BITS) if rsa else _new_key()
    chain.append(
        _sign(_name("quicedge interop leaf"), leaf_key, issuer_name, issuer_key, names=names)
    )
    (directory / "ca.pem").write_bytes(_pem(root))
    (directory / "cert.pem").write_bytes(b"".join(_pem(cert) for cert in reversed(chain)))
    (directory / "priv.key").write_bytes(
        leaf_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _random_name() -> str:
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(LONG_NAME_LENGTH))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey | RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    names: list[str] | None = None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=ca)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
