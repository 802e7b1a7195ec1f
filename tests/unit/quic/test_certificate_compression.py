"""Compressed certificates (RFC 8879): fewer bytes before the client's address is validated."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import brotli
import pytest
import zstandard
from aioquic import tls
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from quicedge.quic import certificate_compression
from quicedge.quic.certificate_compression import COMPRESSIONS, Compression
from quicedge.quic.tls import CertificatePem, CertificateStore, parse_certificate
from tests.support.quicpair import is_confirmed, make_pair
from tests.support.simnet import Link
from tests.support.tlsclient import TlsClient
from tests.support.world import World, is_connected
from tests.unit.quic.test_tls_server import chain_of

ZLIB, BROTLI, ZSTD = 1, 2, 3
DECOMPRESS: dict[int, Callable[[bytes], bytes]] = {
    ZLIB: zlib.decompress,
    BROTLI: brotli.decompress,
    ZSTD: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def client_of(*algorithms: int) -> TlsClient:
    return TlsClient(
        ["x25519"], compressions=algorithms, decompress=lambda kind, data: DECOMPRESS[kind](data)
    )


def visit(world: World, *algorithms: int, **options: object) -> TlsClient:
    with client_of(*algorithms).patched() as peer:
        client = world.client(**options)
        world.talk(client)
    assert is_connected(client)
    peer.client = client  # type: ignore[attr-defined]
    return peer


@cache
def long_chain() -> CertificateStore:
    """An RSA leaf, and two issuers with what public authorities write into theirs."""
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(3)]
    now = datetime.now(UTC)
    chain = []
    names = [f"Example Trust Services RSA Authority {number}" for number in range(4)]
    for index, key in enumerate(keys):
        subject, issuer = (
            x509.Name([
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Trust Services LLC"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ])
            for name in names[index : index + 2]
        )  # fmt: skip
        url = f"http://pki.trust-services.example/repository/{index}/authority"
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(
                x509.AuthorityInformationAccess([
                    x509.AccessDescription(
                        AuthorityInformationAccessOID.CA_ISSUERS,
                        x509.UniformResourceIdentifier(f"{url}.crt"),
                    ),
                    x509.AccessDescription(
                        AuthorityInformationAccessOID.OCSP,
                        x509.UniformResourceIdentifier(f"{url}/ocsp"),
                    ),
                ]), critical=False,
            )
            .add_extension(
                x509.CRLDistributionPoints([
                    x509.DistributionPoint(
                        [x509.UniformResourceIdentifier(f"{url}.crl")], None, None, None
                    )
                ]), critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([
                    x509.DNSName("localhost"),
                    *(x509.DNSName(f"service-{n}.region.example.com") for n in range(20)),
                ]), critical=False,
            )
        )  # fmt: skip
        signer = keys[min(index + 1, 2)]
        chain.append(builder.sign(signer, hashes.SHA256()))
    pem = CertificatePem(
        cert_file="chain", key_file="key",
        cert=b"".join(one.public_bytes(Encoding.PEM) for one in chain),
        key=keys[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )  # fmt: skip
    return CertificateStore([parse_certificate(pem)])


@pytest.mark.parametrize("algorithm", DECOMPRESS)
def test_the_chain_arrives_compressed(algorithm: int) -> None:
    certificates, chain = chain_of("secp256r1")
    world = World(certificates)
    peer = visit(world, algorithm)
    assert peer.compressed_with == algorithm
    assert peer.client.tls._peer_certificate == chain[0]  # type: ignore[attr-defined]
    assert peer.certificate_size < len(certificates.default.message)
    (connection,) = world.endpoint.connections
    assert connection.handshake.compression in {one.name for one in COMPRESSIONS}


@pytest.mark.parametrize("offered", [(), (0x4000,)], ids=["nothing", "an unknown algorithm"])
def test_a_client_that_offers_none_of_ours_gets_the_chain_as_it_is(offered: tuple[int]) -> None:
    world = World(chain_of("secp256r1")[0])
    assert visit(world, *offered).compressed_with is None
    (connection,) = world.endpoint.connections
    assert connection.handshake.compression == "none"


def test_brotli_is_preferred() -> None:
    world = World(chain_of("secp256r1")[0])
    assert visit(world, ZLIB, ZSTD, BROTLI).compressed_with == BROTLI


def test_a_resumed_session_sends_no_certificate() -> None:
    world = World(chain_of("secp256r1")[0])
    options = {"cipher_suites": [tls.CipherSuite.AES_128_GCM_SHA256]}
    first = world.client(**options)
    world.talk(first)
    visit(world, ZLIB, session_ticket=first.last_ticket, **options)  # type: ignore[attr-defined]
    assert {connection.handshake.compression for connection in world.endpoint.connections} == {
        "none", None,
    }  # fmt: skip


def test_a_certificate_is_compressed_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compress(data: bytes) -> bytes:
        calls.append(data)
        return zlib.compress(data)

    monkeypatch.setattr(
        certificate_compression, "COMPRESSIONS", (Compression(ZLIB, "zlib", compress),)
    )
    chain_of.cache_clear()
    world = World(chain_of("secp256r1")[0])
    for _ in range(3):
        assert visit(world, ZLIB).compressed_with == ZLIB
    assert len(calls) == 1


def test_what_compression_would_enlarge_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        certificate_compression,
        "COMPRESSIONS",
        (Compression(ZLIB, "zlib", lambda data: data + b"!"),),
    )
    chain_of.cache_clear()
    world = World(chain_of("secp256r1")[0])
    assert visit(world, ZLIB).compressed_with is None
    (connection,) = world.endpoint.connections
    assert connection.handshake.compression == "none"


@pytest.mark.parametrize("missing", ["brotli", "zstandard"])
def test_what_is_not_installed_is_not_used(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    path = Path(certificate_compression.__file__)
    spec = importlib.util.spec_from_file_location("without", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {one.name for one in module.COMPRESSIONS}
    assert names == {"brotli": {"zstd", "zlib"}, "zstandard": {"brotli", "zlib"}}[missing]
    assert module.choose([BROTLI, ZSTD, ZLIB]) is module.COMPRESSIONS[0]


def handshake_seconds(*algorithms: int) -> float:
    """Until the client has the whole handshake, over 50 ms each way."""
    with client_of(*algorithms).patched():
        pair = make_pair(Link(delay=0.05), Link(delay=0.05), certificates=long_chain())
        pair.run(lambda: is_confirmed(pair.client.connection))
    return pair.now - 1000.0


def test_a_long_chain_takes_one_round_trip_less_when_compressed() -> None:
    """Confirmed after two round trips; three where the amplification limit stops the chain."""
    assert len(long_chain().default.message) > 3600
    plain = handshake_seconds()
    assert plain == pytest.approx(0.3, abs=0.05)
    for algorithm in (BROTLI, ZSTD, ZLIB):
        assert handshake_seconds(algorithm) == pytest.approx(0.2, abs=0.05)
