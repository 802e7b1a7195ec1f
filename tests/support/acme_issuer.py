"""Issues certificates for signing requests, without asking anything."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

_KEY = ec.generate_private_key(ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer of tests")])


def issue(csr_pem: bytes, days: float = 90, start: float = -2) -> bytes:
    """A chain in PEM that is valid for so many days, from so many days after now on."""
    csr = x509.load_pem_x509_csr(csr_pem)
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    begin = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=start)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(_NAME)
        .public_key(csr.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(list(names)), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_KEY.public_key()), critical=False
        )
        .sign(_KEY, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def self_issued(key: rsa.RSAPrivateKey) -> bytes:
    """A certificate of an issuer with that key, in PEM."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
