"""Files of certificates: a key that others can read is no secret."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from quicedge.quic.tls import CertificateError, load_certificate, read_certificate
from quicedge.tcp.tls import check_certificate
from tests.support.certs import write_certificate


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o644, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    with pytest.raises(CertificateError) as caught:
        load_certificate(cert, key)
    assert str(key) in str(caught.value)
    assert f"mode {mode:o}" in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    assert load_certificate(cert, key).names == {"localhost"}


def test_a_key_shows_nowhere_in_text(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    pem = read_certificate(cert, key)
    assert b"PRIVATE KEY" in pem.key
    assert "PRIVATE" not in repr(pem) + str([pem])


def refusal(cert: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        load_certificate(cert, key)
    return str(caught.value)


def test_what_is_wrong_with_files_is_said_in_one_line(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    junk, none = tmp_path / "junk", tmp_path / "none"
    junk.write_text("words")
    junk.chmod(0o600)
    assert refusal(none, key) == f"{none}: No such file or directory"
    assert refusal(cert, none) == f"{none}: No such file or directory"
    assert refusal(junk, key) == f"{junk}: holds no PEM certificate"
    assert refusal(key, cert) == f"{key}: holds no PEM certificate; are cert and key swapped?"
    assert refusal(cert, junk).startswith(f"{junk}: holds no PEM private key")


def test_a_damaged_chain_is_refused_with_the_place_of_the_damage(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    whole = cert.read_bytes()
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    cert.write_bytes(whole[:200])
    assert refusal(cert, key) == f"{cert}: a certificate in it is cut off; copy the file anew"
    cert.write_bytes(whole[:200] + whole)
    assert refusal(cert, key) == f"{cert}: a certificate in it is cut off; copy the file anew"
    cert.write_bytes(whole + begin + b"AAAA\n" + end)
    assert refusal(cert, key) == f"{cert}: certificate 2 in it is damaged; copy the file anew"


def test_a_chain_in_the_wrong_order_is_refused_with_the_right_one(tmp_path: Path) -> None:
    issuer, _ = write_certificate(tmp_path, "issuer", stem="issuer")
    cert, key = write_certificate(tmp_path, "localhost")
    cert.write_bytes(issuer.read_bytes() + cert.read_bytes())
    assert f"{cert}: certificate 2 in it has the key {key}; put it first" in refusal(cert, key)


def test_a_key_is_looked_for_past_those_of_unknown_kinds(tmp_path: Path) -> None:
    issuer, _ = write_certificate(tmp_path, "issuer", stem="issuer")
    _, other = write_certificate(tmp_path, "other", stem="other")
    cert, key = write_certificate(tmp_path, "localhost")
    der = ssl.PEM_cert_to_DER_cert(issuer.read_text())
    ec_public_key = bytes.fromhex("2a8648ce3d0201")
    unknown = ssl.DER_cert_to_PEM_cert(der.replace(ec_public_key, ec_public_key[:-1] + b"\x7f"))
    leaf = cert.read_text()
    cert.write_text(unknown + leaf)
    assert "certificate 2 in it has the key" in refusal(cert, key)
    cert.write_text(leaf + unknown)
    assert "the key is not that of the certificate" in refusal(cert, other)


def test_openssl_gets_the_key_and_the_chain_that_were_checked(tmp_path: Path) -> None:
    """Files may hold more, such as both in one, or parameters; it would take what comes first."""
    _, other = write_certificate(tmp_path, "other", stem="other")
    cert, key = write_certificate(tmp_path, "localhost")
    both = cert.read_bytes() + other.read_bytes()
    cert.write_bytes(both)
    key.write_bytes(key.read_bytes() + both)
    certificate = load_certificate(cert, key)
    check_certificate(certificate)
    assert certificate.pem.count(b"PRIVATE KEY-----\n") == 2
    assert certificate.pem.count(b"BEGIN CERTIFICATE") == 1


def test_an_encrypted_key_is_refused_with_the_remedy(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    private = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    assert f"openssl pkey -in {key}" in refusal(cert, key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            rsa.generate_private_key(65537, 1024),
            "an RSA key of 1024 bits is too short; make one of",
        ),
        (ec.generate_private_key(ec.SECP256K1()), "TLS 1.3 has no signatures on secp256k1"),
    ],
)
def test_keys_that_every_client_refuses_are_refused_first(tmp_path: Path, key, words: str) -> None:
    cert, key_file = write_certificate(tmp_path, "localhost", key=key)
    assert refusal(cert, key_file).startswith(f"{cert}: {words}")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
)
def test_keys_of_today_are_taken(tmp_path: Path, key) -> None:
    assert load_certificate(*write_certificate(tmp_path, "localhost", key=key)).names
