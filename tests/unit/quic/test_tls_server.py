"""The server's first flight, as a stock client takes it."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from quicedge.quic.client_hello import ClientHello
from quicedge.quic.tls import CertificateStore, PrivateKey, parse_certificate, read_certificate
from quicedge.quic.tls_server import _cipher_suite
from tests.support.tlsclient import TlsClient
from tests.support.world import World, is_connected

AES_128, AES_256, CHACHA20 = (
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
)


def new_key(kind: str) -> PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind.startswith("secp"):
        return ec.generate_private_key(getattr(ec, kind.upper())())
    return {"ed25519": ed25519.Ed25519PrivateKey, "ed448": ed448.Ed448PrivateKey}[kind].generate()


@cache
def chain_of(kind: str) -> tuple[CertificateStore, list[x509.Certificate]]:
    """A leaf with a key of `kind`, and its issuer."""
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), new_key(kind)
    now = datetime.now(UTC)
    chain = []
    for subject, public in (("localhost", key.public_key()), ("issuer", issuer_key.public_key())):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        )
        chain.append(builder.sign(issuer_key, hashes.SHA256()))
    with tempfile.TemporaryDirectory() as directory:
        cert_file, key_file = Path(directory, "chain.pem"), Path(directory, "key.pem")
        cert_file.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in chain))
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return CertificateStore([parse_certificate(read_certificate(cert_file, key_file))]), chain


def connect(world: World, **options: object) -> QuicConnection:
    client = world.client(**options)
    world.talk(client)
    return client


@pytest.mark.parametrize("kind", ["rsa", "secp256r1", "secp384r1", "ed25519", "ed448"])
def test_every_kind_of_key_and_a_chain(kind: str) -> None:
    certificates, chain = chain_of(kind)
    client = connect(World(certificates))
    assert is_connected(client)  # it has checked the signature with the leaf's key
    assert client.tls._peer_certificate == chain[0]
    assert client.tls._peer_certificate_chain == chain[1:]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([AES_256, AES_128, CHACHA20], AES_128),  # ours is the choice
        ([AES_256, CHACHA20], AES_256),
        ([CHACHA20, AES_128], CHACHA20),  # but a client without AES in hardware has its way
    ],
)
def test_cipher_suites(offered: list[tls.CipherSuite], chosen: tls.CipherSuite) -> None:
    client = connect(World(), cipher_suites=offered)
    assert is_connected(client)
    assert client.tls.key_schedule is not None
    assert client.tls.key_schedule.cipher_suite == chosen


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((0x0A0A, CHACHA20, AES_128), CHACHA20),  # values of GREASE (RFC 8701) are passed over
        ((0x0A0A, AES_256, AES_128, CHACHA20), AES_128),
    ],
)
def test_unknown_cipher_suites_are_passed_over(
    offered: tuple[int, ...], chosen: tls.CipherSuite
) -> None:
    hello = ClientHello(b"r" * 32, b"", offered, b"\0")
    assert _cipher_suite([AES_256, AES_128, CHACHA20], hello) == chosen


def test_a_new_certificate_is_served_as_soon_as_it_is_set() -> None:
    old, _ = chain_of("secp256r1")
    new, chain = chain_of("rsa")
    world = World(old)
    assert is_connected(connect(world))
    world.endpoint.certificates = new
    assert connect(world).tls._peer_certificate == chain[0]


def test_a_ticket_with_a_false_binder_aborts_the_handshake() -> None:
    world = World()
    ticket = connect(world).last_ticket  # type: ignore[attr-defined]
    ticket.resumption_secret = bytes(len(ticket.resumption_secret))
    client = connect(world, session_ticket=ticket)
    assert not is_connected(client)
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.decrypt_error


def test_a_name_without_a_certificate_is_refused_with_its_alert() -> None:
    missing: list[str] = []
    chain, _ = chain_of("secp256r1")
    store = CertificateStore([], managed=chain.certificates())
    store.on_missing = missing.append
    assert is_connected(connect(World(store)))
    client = connect(World(store), server_name="other.example")
    assert not is_connected(client)
    assert client._close_event is not None
    assert client._close_event.error_code == 0x100 + tls.AlertDescription.unrecognized_name
    assert missing == ["other.example"]


@pytest.mark.parametrize("shares", [["x25519"], []], ids=["at once", "after a retry"])
def test_an_encrypted_client_hello_that_nobody_can_open_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, shares: list[str]
) -> None:
    """What browsers send to servers of which they know no key (GREASE ECH)."""
    outer, hkdf_sha256, aes_128 = b"\0", b"\0\1", b"\0\1"
    sealed = b"\x2a\0\x20" + bytes(32) + b"\0\x90" + bytes(0x90)
    push, pushed = tls.push_client_hello, []

    def greased(buf: Buffer, hello: tls.ClientHello) -> None:
        hello.other_extensions = [
            *(item for item in hello.other_extensions if item[0] != 0xFE0D),
            (0xFE0D, outer + hkdf_sha256 + aes_128 + sealed),
        ]
        pushed.append(hello)
        push(buf, hello)

    monkeypatch.setattr(tls, "push_client_hello", greased)
    with TlsClient(["x25519"], shares).patched():
        assert is_connected(connect(World()))
    assert len(pushed) == 2 - len(shares)
