"""Messages of a handshake in which the client proves who it is (RFC 8446 sections 4.3.2, 4.4.2 and
4.4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aioquic import tls
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from quicedge.client_auth.verdict import RefusedError, Verdict
from quicedge.config.limits import CLIENT_AUTHORITIES_SIZE
from quicedge.quic.tls import handshake_message

_SIGNATURE_ALGORITHMS, _CERTIFICATE_AUTHORITIES = 13, 47
"""ExtensionTypes."""


class AlertUnsupportedExtension(tls.Alert):
    """A message has an extension that was not asked for."""

    description = tls.AlertDescription.unsupported_extension


_Verify = Callable[[Any, bytes, bytes], None]
"""Checks a signature with a key; raises InvalidSignature."""


def _ecdsa(algorithm: hashes.HashAlgorithm) -> _Verify:
    return lambda key, signature, data: key.verify(signature, data, ec.ECDSA(algorithm))


def _pss(algorithm: hashes.HashAlgorithm) -> _Verify:
    scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return lambda key, signature, data: key.verify(signature, data, scheme, algorithm)


def _plain(key: Any, signature: bytes, data: bytes) -> None:
    key.verify(signature, data)


_SCHEMES: dict[int, tuple[type[Any], str | None, _Verify]] = {
    0x0403: (ec.EllipticCurvePublicKey, "secp256r1", _ecdsa(hashes.SHA256())),
    0x0503: (ec.EllipticCurvePublicKey, "secp384r1", _ecdsa(hashes.SHA384())),
    0x0603: (ec.EllipticCurvePublicKey, "secp521r1", _ecdsa(hashes.SHA512())),
    0x0804: (rsa.RSAPublicKey, None, _pss(hashes.SHA256())),
    0x0805: (rsa.RSAPublicKey, None, _pss(hashes.SHA384())),
    0x0806: (rsa.RSAPublicKey, None, _pss(hashes.SHA512())),
    0x0807: (ed25519.Ed25519PublicKey, None, _plain),
    0x0808: (ed448.Ed448PublicKey, None, _plain),
}
"""Kind of key, curve, and check of the signatures that clients may prove themselves with
(RFC 8446 section 4.2.3)."""

_IN_CERTIFICATES = (0x0401, 0x0501, 0x0601)
"""RSA with PKCS #1, which only certificates may still be signed with."""


def certificate_request(authorities: Iterable[x509.Certificate]) -> bytes:
    """A CertificateRequest that names the authorities, from which browsers tell what to offer."""
    schemes = b"".join(number.to_bytes(2, "big") for number in (*_SCHEMES, *_IN_CERTIFICATES))
    extensions = _extension(_SIGNATURE_ALGORITHMS, _opaque16(schemes))
    names = b"".join(_opaque16(item.subject.public_bytes()) for item in authorities)
    # The names are a hint: where there are very many, clients choose without it.
    if len(names) <= CLIENT_AUTHORITIES_SIZE:
        extensions += _extension(_CERTIFICATE_AUTHORITIES, _opaque16(names))
    # RFC 8446 section 4.3.2: in the handshake, the context SHALL be empty.
    return handshake_message(tls.HandshakeType.CERTIFICATE_REQUEST, b"\0" + _opaque16(extensions))


def read_certificate_message(message: bytes) -> list[bytes]:
    """The chain in a client's Certificate message, in DER; raises `aioquic.tls.Alert`."""
    # The message has its header, then the context of the request, which was empty.
    if message[4:5] != b"\0":
        raise tls.AlertIllegalParameter("Certificate has another context than its request")
    at, end = 8, len(message)
    if at > end or int.from_bytes(message[5:8], "big") != end - at:
        raise tls.AlertDecodeError("Certificate has not the length of its list")
    chain = []
    while at < end:
        data, at = _vector(message, at, 3)
        extensions, at = _vector(message, at, 2)
        if not data:
            raise tls.AlertDecodeError("Certificate has an empty entry")
        if extensions:
            # RFC 8446 section 4.2: none was asked for.
            raise AlertUnsupportedExtension("Certificate has extensions")
        chain.append(data)
    return chain


def check_proof(message: bytes, certificate: bytes, signed: bytes) -> None:
    """Check a client's CertificateVerify with the key of its certificate.

    Raises `aioquic.tls.Alert`, or RefusedError for a certificate that has no usable key.
    """
    algorithm = int.from_bytes(message[4:6], "big")
    signature, end = _vector(message, 6, 2)
    if end != len(message):
        raise tls.AlertDecodeError("CertificateVerify has bytes behind its signature")
    scheme = _SCHEMES.get(algorithm)
    if scheme is None:
        raise tls.AlertIllegalParameter("CertificateVerify is signed in a way not offered")
    kind, curve, verify = scheme
    try:
        key: Any = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RefusedError(Verdict.INVALID, f"not readable: {error}") from None
    if not isinstance(key, kind) or (curve is not None and key.curve.name != curve):
        raise tls.AlertIllegalParameter("CertificateVerify is not signed with the client's key")
    try:
        verify(key, signature, signed)
    except InvalidSignature:
        raise tls.AlertDecryptError("CertificateVerify does not verify") from None


def _vector(message: bytes, at: int, width: int) -> tuple[bytes, int]:
    start = at + width
    end = start + int.from_bytes(message[at:start], "big")
    if end > len(message):
        raise tls.AlertDecodeError("A vector is longer than the message")
    return message[start:end], end


def _opaque16(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _extension(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _opaque16(value)
