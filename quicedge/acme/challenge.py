"""How a host proves to an issuer that it controls a name (RFC 8555 section 8, RFC 8737)."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from msgspec import Struct, field

_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_VALID_FOR = datetime.timedelta(days=1)


class ChallengeKind(StrEnum):
    """By the names of the ACME registry."""

    HTTP_01 = "http-01"
    TLS_ALPN_01 = "tls-alpn-01"
    DNS_01 = "dns-01"


class Proof(Struct, frozen=True, kw_only=True):
    """What an issuer looks for, to see that a name is ours."""

    kind: ChallengeKind
    name: str
    """The DNS name, without the `*.` of a wildcard."""
    token: str
    key_authorization: str

    @property
    def record_name(self) -> str:
        """The TXT record that DNS-01 is about."""
        return f"_acme-challenge.{self.name}."

    @property
    def record_value(self) -> str:
        digest = hashlib.sha256(self.key_authorization.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class ValidationCertificate(Struct, frozen=True, kw_only=True):
    """What TLS-ALPN-01 shows to whom negotiates `acme-tls/1` for a name."""

    name: str
    chain_pem: bytes
    key_pem: bytes

    @property
    def pem(self) -> bytes:
        return self.key_pem + self.chain_pem

    @property
    def title(self) -> str:
        return self.name

    def covers(self, host: str) -> bool:
        return host.lower() == self.name

    def __repr__(self) -> str:
        return f"<validation certificate of {self.name}>"


class Challenges(Struct, frozen=True, kw_only=True):
    """Everything that the workers answer to issuers."""

    http: dict[str, str] = field(default_factory=dict)
    """Contents by token."""
    tls: list[ValidationCertificate] = field(default_factory=list)


def answers(proofs: Iterable[Proof]) -> Challenges:
    """What the workers have to answer for these proofs; DNS is not theirs."""
    proofs = list(proofs)
    return Challenges(
        http={
            proof.token: proof.key_authorization
            for proof in proofs
            if proof.kind is ChallengeKind.HTTP_01
        },
        tls=[
            validation_certificate(proof)
            for proof in proofs
            if proof.kind is ChallengeKind.TLS_ALPN_01
        ],
    )


def validation_certificate(proof: Proof) -> ValidationCertificate:
    """A self-signed certificate with the digest of the key authorization (RFC 8737 section 3)."""
    digest = hashlib.sha256(proof.key_authorization.encode()).digest()
    octet_string = bytes((4, len(digest))) + digest
    return self_signed(proof.name, x509.UnrecognizedExtension(_ACME_IDENTIFIER, octet_string))


def self_signed(name: str, extension: x509.ExtensionType | None = None) -> ValidationCertificate:
    """A certificate that nobody trusts, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quicedge")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID_FOR)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return ValidationCertificate(
        name=name,
        chain_pem=certificate.public_bytes(Encoding.PEM),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
