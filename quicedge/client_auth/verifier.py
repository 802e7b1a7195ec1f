"""Verifies chains of clients' certificates, with OpenSSL.

Not with the verifier of `cryptography`: that one is for the public web, and refuses what private
authorities issue every day (no alternative names, Ed25519). On TCP the OpenSSL of `ssl` verifies;
here it is the one of pyOpenSSL, with the same flags. What it is not asked for there is checked
after it: purpose and strength.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from quicedge.client_auth.certificate import UNREADABLE, ClientCertificate
from quicedge.client_auth.material import crls_of
from quicedge.client_auth.verdict import RefusedError, Verdict, verdict_of_openssl
from quicedge.config.limits import CLIENT_CHAIN_LENGTH

_MIN_RSA_BITS = 2048
_MIN_EC_BITS = 224
_BROKEN_HASHES = ("md5", "sha1")
"""What security level 2 of OpenSSL (112 bits) leaves out, which TCP has."""

_ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


class Verifier:
    """Trusts the authorities of one entry of the configuration."""

    def __init__(self, ca: bytes, crl: bytes) -> None:
        """PEM, which was read before; without `crl`, revocation is not looked at."""
        self.authorities = x509.load_pem_x509_certificates(ca)
        self._store = store = crypto.X509Store()
        for authority in self.authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        # An intermediate authority can be trusted without its root.
        flags = crypto.X509StoreFlags.PARTIAL_CHAIN
        if crl:
            flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
            for revoked in crls_of(crl):
                store.add_crl(revoked)
        store.set_flags(flags)

    def verify(self, chain: Sequence[bytes]) -> ClientCertificate:
        """Verify a chain in DER as a client sent it, its own certificate first.

        Raises RefusedError.
        """
        if len(chain) > CLIENT_CHAIN_LENGTH:
            raise RefusedError(Verdict.INVALID, f"a chain of {len(chain)} certificates")
        try:
            parsed = [x509.load_der_x509_certificate(item) for item in chain]
            subject = parsed[0].subject.rfc4514_string()
            leaf, *others = map(crypto.X509.from_cryptography, parsed)
        except ValueError as error:
            raise RefusedError(Verdict.INVALID, f"not readable: {error}") from None
        context = crypto.X509StoreContext(self._store, leaf, others)
        try:
            context.verify_certificate()
        except crypto.X509StoreContextError as error:
            code, depth, message = error.errors[:3]
            raise RefusedError(
                verdict_of_openssl(code), f"{message} (certificate {depth} of the chain)", subject
            ) from None
        # As it was verified, which may not be as it was sent.
        verified = [item.to_cryptography() for item in context.get_verified_chain() or ()]
        try:
            weakness = _weakness(verified)
        except UNREADABLE as error:
            raise RefusedError(Verdict.INVALID, f"not readable: {error}", subject) from None
        if weakness is not None:
            raise RefusedError(Verdict.UNSUITABLE, weakness, subject)
        return ClientCertificate([item.public_bytes(Encoding.DER) for item in verified])


def _weakness(chain: Sequence[x509.Certificate]) -> str | None:
    """Why a chain whose signatures are right does not prove who a client is."""
    if (usage := _key_usage(chain[0])) is not None and not (
        usage.digital_signature or usage.key_agreement
    ):
        return "its key is not for signatures, by its key usage"
    for certificate in chain:
        purposes = _purposes(certificate)
        allowed = {ExtendedKeyUsageOID.CLIENT_AUTH}
        if certificate is not chain[0]:
            allowed.add(_ANY_PURPOSE)
        if purposes is not None and not allowed & set(purposes):
            return "not for authentication of clients, by its extended key usage"
        if (weak := _weak_key(certificate)) is not None:
            return weak
    for certificate in chain[:-1]:
        algorithm = certificate.signature_hash_algorithm
        if algorithm is not None and algorithm.name in _BROKEN_HASHES:
            return f"signed with {algorithm.name}"
    return None


def _weak_key(certificate: x509.Certificate) -> str | None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _MIN_EC_BITS:
        return f"a key on {key.curve.name}"
    return None


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _purposes(certificate: x509.Certificate) -> Iterable[x509.ObjectIdentifier] | None:
    """None: there is no restriction."""
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
