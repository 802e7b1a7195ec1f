"""The issuers of a configuration."""

from __future__ import annotations

from msgspec import Struct

from quicedge.acme.wire import ExternalBinding
from quicedge.config.schema import Acme
from quicedge.quic.privatefile import PrivateFileError, read_private

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class IssuerKeyError(ValueError):
    """A key of an external account binding that cannot be read; the message names key and file."""


class Issuer(Struct, frozen=True, kw_only=True):
    """Where to order, and as whom."""

    directory: str
    ca: str | None = None
    """PEM bundle that its TLS certificate is verified against; None: the public ones."""
    binding: ExternalBinding | None = None
    profile: str | None = None


def issuers_of(acme: Acme) -> list[Issuer]:
    """The issuers, most preferred first; raises IssuerKeyError."""
    if acme.issuers:
        return [
            Issuer(
                directory=item.directory,
                ca=item.ca,
                binding=_binding(
                    f"tls.acme.issuers[{index}]", item.eab_key_id, item.eab_hmac_key_file
                ),
                profile=item.profile or acme.profile,
            )
            for index, item in enumerate(acme.issuers)
        ]
    public = LETS_ENCRYPT_STAGING if acme.staging else LETS_ENCRYPT
    return [
        Issuer(
            directory=acme.directory or public,
            ca=acme.ca,
            binding=_binding("tls.acme", acme.eab_key_id, acme.eab_hmac_key_file),
            profile=acme.profile,
        )
    ]


def _binding(where: str, key_id: str | None, file: str | None) -> ExternalBinding | None:
    if key_id is None or file is None:
        return None
    try:
        key = read_private(file).decode("ascii").strip()
    except (PrivateFileError, UnicodeDecodeError) as error:
        raise IssuerKeyError(f"{where}.eab_hmac_key_file: {error}") from error
    return ExternalBinding(key_id=key_id, hmac_key=key)
