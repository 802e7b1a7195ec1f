"""A client's certificate, once its chain is verified."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What `cryptography` raises for extensions that break the rules, which OpenSSL may let pass."""


class ClientCertificate:
    """The facts that conditions, logs and origins ask for; read when they do."""

    def __init__(self, chain: Sequence[bytes]) -> None:
        """`chain`: in DER, the client's own certificate first, up to the authority."""
        self.chain = tuple(chain)

    @cached_property
    def parsed(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.chain[0])

    @cached_property
    def subject(self) -> str:
        """As in RFC 4514: `CN=device-7,O=Example`; empty if it cannot be read."""
        try:
            return self.parsed.subject.rfc4514_string()
        except ValueError:
            return ""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal digits."""
        return self.parsed.fingerprint(hashes.SHA256()).hex()

    @cached_property
    def names(self) -> frozenset[str]:
        """Its alternative names: DNS names, URIs (SPIFFE IDs), email addresses; none that cannot be
        read."""
        try:
            found = self.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (x509.ExtensionNotFound, *UNREADABLE):
            return frozenset()
        kinds: tuple[type[x509.GeneralName], ...]
        kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name)
        return frozenset(name.value for name in found.value if isinstance(name, kinds))

    @cached_property
    def field(self) -> bytes:
        """The value of `Client-Cert` (RFC 9440 section 2.2)."""
        return _byte_sequence(self.chain[0])

    @cached_property
    def chain_field(self) -> bytes:
        """The value of `Client-Cert-Chain` (RFC 9440 section 2.3): what certifies it, and what
        certifies that, without the authority that the edge is configured with."""
        return b", ".join(map(_byte_sequence, self.chain[1:-1]))


def _byte_sequence(data: bytes) -> bytes:
    """A byte sequence of structured fields (RFC 9651 section 3.3.5)."""
    return b":%b:" % base64.b64encode(data)
