"""Identifiers of certificates as in RFC 9773 section 4.1."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from quicedge.acme.certificate_id import certificate_id


def certificate(serial: int, authority: bytes | None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if authority is not None:
        extension = x509.AuthorityKeyIdentifier(authority, None, None)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("serial", "octets"),
    [(0x87654321, "AIdlQyE"), (0x07654321, "B2VDIQ"), (0x80, "AIA"), (0x7F, "fw")],
)
def test_the_serial_number_is_that_of_der_with_its_leading_zero(serial: int, octets: str) -> None:
    found = certificate_id(
        certificate(serial, bytes.fromhex("69885b6b87464041e1b37b847bd0ae2cde01c8d4"))
    )
    assert found == f"aYhba4dGQEHhs3uEe9CuLN4ByNQ.{octets}"


def test_a_certificate_that_names_no_issuers_key_has_no_identifier() -> None:
    assert certificate_id(certificate(1, None)) is None
