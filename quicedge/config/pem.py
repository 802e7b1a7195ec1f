"""What is wrong with a PEM file of certificates, in words for whom it belongs to."""

from __future__ import annotations

import re

from cryptography import x509

BEGIN = b"-----BEGIN CERTIFICATE-----"
_WHOLE = re.compile(BEGIN + rb".*?-----END CERTIFICATE-----", re.DOTALL)


def damage(pem: bytes) -> str:
    """Why certificates cannot be read of a file that has the beginning of one."""
    whole = _WHOLE.findall(pem)
    for number, block in enumerate(whole, 1):
        if block.count(BEGIN) > 1:
            break
        try:
            x509.load_pem_x509_certificate(block)
        except ValueError:
            return f"certificate {number} in it is damaged; copy the file anew"
    return "a certificate in it is cut off; copy the file anew"
