"""Which certificates of clients are accepted, by both ends: ours on QUIC, OpenSSL's on TCP."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.client_auth.material import ClientAuthPem
from quicedge.client_auth.rules import ClientAuth
from quicedge.client_auth.verdict import REFUSALS, RefusedError, Verdict
from quicedge.client_auth.verifier import Verifier
from quicedge.config.schema import ClientAuthMode
from quicedge.quic.tls import CertificateStore
from quicedge.tcp.tls import ServerContexts, identity_of, refusal_of
from tests.support.certs import make_certificate
from tests.support.clientpki import Certified, authority, client, revocation_list

ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT, path_length=0)
OTHER_ROOT = authority("other root")
TOO_DEEP = authority("below the end", INTERMEDIATE)
REVOKED_AUTHORITY = authority("revoked authority", ROOT)

SERVED = make_certificate("a.test")


@cache
def alice() -> Certified:
    return client("alice", INTERMEDIATE)


def on_quic(chain: list[bytes], ca: bytes, crl: bytes) -> Verdict:
    try:
        assert Verifier(ca, crl).verify(chain).chain[0] == chain[0]
    except RefusedError as error:
        return error.verdict
    return Verdict.ACCEPTED


def on_tcp(who: Certified | None, ca: bytes, crl: bytes, directory: Path) -> Verdict:
    """A TLS handshake in memory."""
    rule = ClientAuthPem(hosts=["*"], mode=ClientAuthMode.REQUIRE, ca=ca, crl=crl)
    contexts = ServerContexts(CertificateStore([SERVED]), ["h2"], client_auth=ClientAuth([rule]))
    contexts.activate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if who is not None:
        context.load_cert_chain(*who.write(directory, "client"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    visitor = context.wrap_bio(to_client, to_server, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        visitor.do_handshake()
    hello = to_server.read()
    to_server.write(hello)
    server = contexts.wrap(to_server, to_client, hello)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    visitor.do_handshake()
    try:
        server.do_handshake()
    except ssl.SSLError as error:
        refused = refusal_of(error)
        if refused is None:
            raise
        return refused.verdict
    identity = identity_of(server)
    assert identity is not None
    assert identity.certificate is not None
    assert who is not None
    assert identity.certificate.chain[0] == who.chain[0]
    return Verdict.ACCEPTED


def names(*values: str) -> Iterable[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(value) for value in values]


ROOT_AND_LISTS = (ROOT.pem, revocation_list(ROOT) + revocation_list(INTERMEDIATE))
CASES = {
    "a chain": (alice(), ROOT.pem, b"", Verdict.ACCEPTED),
    "no intermediate in between": (client("bob", ROOT), ROOT.pem, b"", Verdict.ACCEPTED),
    "without extended key usage": (
        client("old", ROOT, purposes=None), ROOT.pem, b"", Verdict.ACCEPTED),
    "with an alternative name": (
        client("spiffe", ROOT, names=names("spiffe://example/a")), ROOT.pem, b"",
        Verdict.ACCEPTED),
    "an intermediate that is trusted itself": (alice(), INTERMEDIATE.pem, b"", Verdict.ACCEPTED),
    "ed25519": (client("ed", ROOT, kind="ed25519"), ROOT.pem, b"", Verdict.ACCEPTED),
    "rsa": (client("rsa", ROOT, kind="rsa2048"), ROOT.pem, b"", Verdict.ACCEPTED),
    "p384": (client("p384", ROOT, kind="secp384r1"), ROOT.pem, b"", Verdict.ACCEPTED),
    "one of two authorities": (alice(), OTHER_ROOT.pem + ROOT.pem, b"", Verdict.ACCEPTED),
    "not revoked": (alice(), *ROOT_AND_LISTS, Verdict.ACCEPTED),
    "of another authority": (alice(), OTHER_ROOT.pem, b"", Verdict.UNKNOWN_CA),
    "the intermediate is not sent": (
        Certified(alice().certificate, alice().key), ROOT.pem, b"", Verdict.UNKNOWN_CA),
    "expired": (client("late", ROOT, age=2), ROOT.pem, b"", Verdict.EXPIRED),
    "not yet valid": (client("early", ROOT, age=-90), ROOT.pem, b"", Verdict.INVALID),
    "revoked": (
        alice(), ROOT.pem, revocation_list(ROOT) + revocation_list(INTERMEDIATE, alice()),
        Verdict.REVOKED),
    "its authority is revoked": (
        client("carol", REVOKED_AUTHORITY), ROOT.pem,
        revocation_list(ROOT, REVOKED_AUTHORITY) + revocation_list(REVOKED_AUTHORITY),
        Verdict.REVOKED),
    "no list of its authority": (
        alice(), ROOT.pem, revocation_list(ROOT), Verdict.CRL_UNUSABLE),
    "an old list": (
        client("bob", ROOT), ROOT.pem, revocation_list(ROOT, age=1), Verdict.CRL_UNUSABLE),
    "a forged list": (
        client("bob", ROOT), ROOT.pem, revocation_list(Certified(ROOT.certificate, OTHER_ROOT.key)),
        Verdict.CRL_UNUSABLE),
    "for servers": (
        client("server", ROOT, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), ROOT.pem, b"",
        Verdict.UNSUITABLE),
    "issued by a client": (
        client("mallory", client("bob", ROOT)), ROOT.pem, b"", Verdict.UNKNOWN_CA),
    "a path that is too long": (client("deep", TOO_DEEP), ROOT.pem, b"", Verdict.INVALID),
    "a weak key": (client("weak", ROOT, kind="rsa1024"), ROOT.pem, b"", Verdict.UNSUITABLE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_both_protocols_come_to_the_same_verdict(case: str, tmp_path: Path) -> None:
    who, ca, crl, expected = CASES[case]
    assert on_quic(who.chain, ca, crl) is expected
    assert on_tcp(who, ca, crl, tmp_path) is expected


def test_a_client_without_a_certificate_is_told_that_it_needs_one(tmp_path: Path) -> None:
    assert on_tcp(None, ROOT.pem, b"", tmp_path) is Verdict.REQUIRED


def test_a_chain_of_too_many_certificates_is_not_looked_at() -> None:
    assert on_quic(alice().chain * 5, ROOT.pem, b"") is Verdict.INVALID


def test_garbage_is_refused_in_words() -> None:
    assert on_quic([b"0\x03\x02\x01\x05"], ROOT.pem, b"") is Verdict.INVALID
    assert on_quic([alice().chain[0], b"garbage"], ROOT.pem, b"") is Verdict.INVALID


@pytest.mark.parametrize("names", [b"\x30\x03\xa0\x01\x00", b"\xff"], ids=["odd", "garbage"])
def test_names_that_cannot_be_read_are_none(names: bytes) -> None:
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names)
    who = client("odd", ROOT, extensions=[extension])
    certificate = ClientCertificate(who.chain)
    assert certificate.names == frozenset()
    assert certificate.subject == "CN=odd,O=Example"
    assert on_quic(who.chain, ROOT.pem, b"") in REFUSALS
