"""Proofs, as issuers look for them."""

from __future__ import annotations

import hashlib

from cryptography import x509

from quicedge.acme.challenge import ChallengeKind, Proof, answers, validation_certificate


def proof(kind: ChallengeKind) -> Proof:
    return Proof(
        kind=kind,
        name="www.example.com",
        token="evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA",
        key_authorization="evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cB",
    )


def test_a_dns_record_has_the_digest_of_the_key_authorization() -> None:
    found = proof(ChallengeKind.DNS_01)
    assert found.record_name == "_acme-challenge.www.example.com."
    assert len(found.record_value) == 43
    assert not found.record_value.endswith("=")


def test_a_validation_certificate_has_the_critical_extension_of_rfc_8737() -> None:
    made = validation_certificate(proof(ChallengeKind.TLS_ALPN_01))
    certificate = x509.load_pem_x509_certificate(made.chain_pem)
    found = certificate.extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
    )
    digest = hashlib.sha256(proof(ChallengeKind.TLS_ALPN_01).key_authorization.encode()).digest()
    assert found.critical
    assert found.value.value == b"\x04\x20" + digest
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["www.example.com"]
    assert "key" not in repr(made)


def test_workers_answer_for_http_and_tls_and_not_for_dns() -> None:
    found = answers(proof(kind) for kind in ChallengeKind)
    assert list(found.http) == [proof(ChallengeKind.HTTP_01).token]
    assert [one.name for one in found.tls] == ["www.example.com"]
