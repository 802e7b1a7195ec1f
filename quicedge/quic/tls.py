"""Certificates and their selection by server name (RFC 6066 section 3)."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from quicedge.config.pem import BEGIN, damage
from quicedge.quic.certificate_compression import UNCOMPRESSED, choose, compressed_message
from quicedge.quic.privatefile import PrivateFileError, read_private

PrivateKey = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)  # fmt: skip

_MIN_RSA_BITS = 2048
"""As the CA/Browser Forum's baseline requirements, section 6.1.5, and all clients have it."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Those of RFC 8446 section 4.2.3."""
_BROKEN_HASHES = ("md5", "sha1")

_CERTIFICATE = 11
"""HandshakeType of the Certificate message."""


class CertificateError(ValueError):
    """A certificate or key that cannot be served; the message names the file."""


def handshake_message(kind: int, body: bytes) -> bytes:
    """A message of the TLS handshake (RFC 8446 section 4)."""
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


SIGNATURE_NAMES = {
    0x0403: "ecdsa_secp256r1_sha256",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0807: "ed25519",
    0x0808: "ed448",
}
"""Of TLS signature schemes (RFC 8446 section 4.2.3)."""


def _signatures(key: PrivateKey) -> dict[int, tuple[Any, ...]]:
    """Algorithms of the signatures that a key gives, most preferred first, and how it is asked.

    Numbers are those of RFC 8446 section 4.2.3.
    """
    if isinstance(key, rsa.RSAPrivateKey):
        # RFC 8446 section 4.4.3: RSA signatures MUST use an RSASSA-PSS algorithm.
        return {0x0804: _pss(hashes.SHA256()), 0x0805: _pss(hashes.SHA384())}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {0x0807: ()}
    if isinstance(key, ed448.Ed448PrivateKey):
        return {0x0808: ()}
    return {
        "secp256r1": {0x0403: (ec.ECDSA(hashes.SHA256()),)},
        "secp384r1": {0x0503: (ec.ECDSA(hashes.SHA384()),)},
        "secp521r1": {0x0603: (ec.ECDSA(hashes.SHA512()),)},
    }.get(key.curve.name, {})


def _pss(algorithm: hashes.HashAlgorithm) -> tuple[Any, ...]:
    salt_length = algorithm.digest_size
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=salt_length), algorithm


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A parsed chain, its key, and the names it covers."""

    message: bytes
    """The Certificate message (RFC 8446 section 4.4.2), the same for every client."""
    private_key: PrivateKey
    names: frozenset[str]
    """Lower-case DNS names (`*.example.com` for wildcards) and IP addresses in text."""
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    """The content of its files, by which it is known again."""
    signatures: dict[int, tuple[Any, ...]] = field(init=False)
    """TLS signature algorithms of the key, and the arguments of `sign` for each."""
    _compressed: dict[str, bytes] = field(init=False, default_factory=dict, compare=False)
    """Messages by the compression that was asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "signatures", _signatures(self.private_key))

    def message_for(self, compressions: Iterable[int]) -> tuple[str, bytes]:
        """The message for a client that takes these algorithms (RFC 8879), and the compression that
        it has; compressed once for all clients."""
        compression = choose(compressions)
        if compression is None:
            return UNCOMPRESSED, self.message
        name = compression.name
        found = self._compressed.get(name)
        if found is None:
            found = compressed_message(compression, self.message)
            # What grows is sent as it is.
            found = self._compressed[name] = min(found, self.message, key=len)
        return (UNCOMPRESSED if found is self.message else name), found

    @property
    def pem(self) -> bytes:
        """Key and chain for OpenSSL, which serves TCP: those that were checked. Files may hold
        others, of which it would take the first."""
        key = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = "".join(map(ssl.DER_cert_to_PEM_cert, _chain_of(self.message)))
        return key + chain.encode()

    @property
    def title(self) -> str:
        """What it is called in errors."""
        return ", ".join(sorted(self.names)[:3]) or "no name"

    def covers(self, host: str) -> bool:
        """Whether the certificate covers `host` (without port)."""
        host = host.lower().rstrip(".").strip("[]")
        if host in self.names:
            return True
        try:
            return str(ipaddress.ip_address(host)) in self.names
        except ValueError:
            _, dot, parent = host.partition(".")
            return bool(dot) and f"*.{parent}" in self.names


class CertificatePem(msgspec.Struct, frozen=True, kw_only=True):
    """A chain and its key as PEM; only the supervisor reads the files."""

    cert_file: str
    key_file: str
    """Names, for errors."""
    cert: bytes
    key: bytes
    default: bool = False

    def __repr__(self) -> str:
        return f"<certificate {self.cert_file}>"  # the key must not reach a log


def read_certificate(
    cert_file: str | Path, key_file: str | Path, *, default: bool = False, private: bool = True
) -> CertificatePem:
    """The files of a certificate; raises CertificateError.

    `private`: refuse a key that others than its owner may read.
    """
    try:
        cert = Path(cert_file).read_bytes()
    except OSError as error:
        raise CertificateError(f"{cert_file}: {error.strerror}") from error
    if BEGIN not in cert:
        swapped = "; are cert and key swapped?" if b"PRIVATE KEY-----" in cert else ""
        raise CertificateError(f"{cert_file}: holds no PEM certificate{swapped}")
    try:
        key = read_private(key_file) if private else Path(key_file).read_bytes()
    except PrivateFileError as error:
        raise CertificateError(str(error)) from error
    except OSError as error:
        raise CertificateError(f"{key_file}: {error.strerror}") from error
    return CertificatePem(
        cert_file=str(cert_file), key_file=str(key_file), cert=cert, key=key, default=default
    )


def parse_certificate(pem: CertificatePem) -> ServerCertificate:
    """A certificate to serve: a chain with its leaf first, and its key; raises CertificateError."""
    cert_file, key_file = pem.cert_file, pem.key_file
    try:
        certificates = x509.load_pem_x509_certificates(pem.cert)
    except ValueError as error:
        what = damage(pem.cert) if BEGIN in pem.cert else "holds no PEM certificate"
        raise CertificateError(f"{cert_file}: {what}") from error
    try:
        private_key: Any = load_pem_private_key(pem.key, None)
    except TypeError as error:
        # `cryptography` raises this if the key is encrypted.
        raise CertificateError(
            f"{key_file}: the key is encrypted, and nobody is there to type a password "
            f"(openssl pkey -in {key_file} -out plain.key)"
        ) from error
    except ValueError as error:
        raise CertificateError(f"{key_file}: holds no PEM private key: {error}") from error
    if not isinstance(private_key, PrivateKey):
        raise CertificateError(f"{key_file}: {type(private_key).__name__} is not usable with TLS")
    place = _place(private_key, certificates)
    if place is None:
        raise CertificateError(f"{key_file}: the key is not that of the certificate {cert_file}")
    if place:
        raise CertificateError(
            f"{cert_file}: certificate {place + 1} in it has the key {key_file}; put it first, "
            "before those of its issuers"
        )
    weakness = _weakness(private_key, certificates)
    if weakness:
        raise CertificateError(f"{cert_file}: {weakness}")
    return ServerCertificate(
        _certificate_message(certificates),
        private_key,
        frozenset(_names(certificates[0])),
        pem.cert,
        pem.key,
    )


class Validity(NamedTuple):
    """When a chain may be served, in seconds since 1970, and for which names."""

    not_before: float
    not_after: float
    """The earliest expiry in the chain without roots: clients have their own."""
    names: frozenset[str]


def validity(pem: CertificatePem) -> Validity:
    """What the certificates of a chain that was parsed before say of themselves."""
    chain = x509.load_pem_x509_certificates(pem.cert)
    leaf = chain[0]
    judged = [leaf, *(one for one in chain[1:] if one.issuer != one.subject)]
    return Validity(
        max(one.not_valid_before_utc.timestamp() for one in judged),
        min(one.not_valid_after_utc.timestamp() for one in judged),
        frozenset(_names(leaf)),
    )


def _place(key: PrivateKey, chain: Iterable[x509.Certificate]) -> int | None:
    """Which certificate a key belongs to, from 0."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = key.public_key().public_bytes(*form)
    for place, certificate in enumerate(chain):
        with suppress(UnsupportedAlgorithm, ValueError):  # a kind of key that we do not know
            if certificate.public_key().public_bytes(*form) == public:
                return place
    return None


def _weakness(key: PrivateKey, chain: Iterable[x509.Certificate]) -> str | None:
    """Why all current clients would reject a chain, and what to use instead."""
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        return (
            f"an RSA key of {key.key_size} bits is too short; make one of {_MIN_RSA_BITS} bits, or "
            "P-256 (openssl ecparam -name prime256v1 -genkey)"
        )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        return f"TLS 1.3 has no signatures on {key.curve.name}; make a key on P-256"
    for certificate in chain:
        algorithm = certificate.signature_hash_algorithm
        if algorithm is None or algorithm.name not in _BROKEN_HASHES:
            continue
        if certificate.issuer != certificate.subject:  # roots are trusted as they are
            return f"signed with {algorithm.name}, which clients refuse; have it issued anew"
    return None


def _certificate_message(chain: Iterable[x509.Certificate]) -> bytes:
    """The chain, leaf first, with no extension to any entry."""
    entries = b"".join(
        len(der).to_bytes(3, "big") + der + b"\0\0"
        for der in (certificate.public_bytes(Encoding.DER) for certificate in chain)
    )
    # RFC 8446 section 4.4.2: in the case of server authentication, the context SHALL be empty.
    return handshake_message(_CERTIFICATE, b"\0" + len(entries).to_bytes(3, "big") + entries)


def _chain_of(message: bytes) -> Iterator[bytes]:
    """The certificates of a Certificate message, in DER."""
    at = 8  # behind the message's type and length, the context and the length of the list
    while at < len(message):
        end = at + 3 + int.from_bytes(message[at : at + 3], "big")
        yield message[at + 3 : end]
        at = end + 2  # no extensions


def _names(certificate: x509.Certificate) -> Iterable[str]:
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (name.lower() for name in san.get_values_for_type(x509.DNSName))
    yield from (str(address) for address in san.get_values_for_type(x509.IPAddress))


def load_certificate(cert_file: str | Path, key_file: str | Path) -> ServerCertificate:
    """Read a PEM chain (leaf first) and its PEM key; raises CertificateError."""
    return parse_certificate(read_certificate(cert_file, key_file))


class CertificateStore:
    """The certificates of a listener; immutable, a reload creates a new store.

    Clients that ask for a name without a certificate get the default one: the first of the
    operator's. There is none among those that are `managed`, ordered by name: without one of the
    operator's, such clients are refused.
    """

    def __init__(
        self,
        certificates: Iterable[ServerCertificate],
        default: ServerCertificate | None = None,
        *,
        managed: Iterable[ServerCertificate] | None = None,
        strict: bool = False,
    ) -> None:
        """`managed` may be empty; None: none are ordered, and there must be others. `strict`: the
        default one is for the names that it covers alone."""
        self.on_missing: Callable[[str], None] = lambda name: None
        """Called with names that clients are refused for."""
        self._by_name: dict[str, ServerCertificate] = {}
        given = list(certificates)
        self.default = default or next(iter(given), None)
        self._all = [*given, *(managed or ())]
        self._strict = strict
        for certificate in self._all:
            for name in certificate.names:
                self._by_name.setdefault(name, certificate)
        if self.default is None and managed is None:
            raise CertificateError("no certificate to serve")

    def certificates(self) -> Iterable[ServerCertificate]:
        """All of them, each once."""
        return self._all

    def select(self, server_name: str | None) -> ServerCertificate | None:
        """Exact name, else the wildcard one label up, else the default certificate if any.

        None: the client must be refused.
        """
        if server_name is None:
            return None if self._strict else self.default
        name = server_name.lower().rstrip(".")
        found = self._by_name.get(name)
        if found is None:
            _, _, parent = name.partition(".")
            found = self._by_name.get(f"*.{parent}")
        if found is not None:
            return found
        if self._strict or self.default is None:
            self.on_missing(name)
            return None
        return self.default
