"""The identifier of a certificate in questions of renewal (RFC 9773 section 4.1)."""

from __future__ import annotations

import base64

from cryptography import x509


def certificate_id(chain_pem: bytes) -> str | None:
    """Issuer's key identifier and serial number; None: the certificate names no issuer's key."""
    leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    try:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return None
    if authority.key_identifier is None:
        return None
    serial = leaf.serial_number
    # The content octets of the DER integer: with a zero before a leading one bit.
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_base64url(authority.key_identifier)}.{_base64url(octets)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
