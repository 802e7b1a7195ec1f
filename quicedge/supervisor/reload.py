"""A new configuration, read and proven before anything changes."""

from __future__ import annotations

import msgspec

from quicedge.config.loader import ConfigError, load_config
from quicedge.config.schema import Config, Tls
from quicedge.quic.sharedkeys import SharedKeyError, SharedKeys, read_shared_keys
from quicedge.quic.tls import CertificateError, CertificatePem, parse_certificate, read_certificate

FIXED_AT_START = ("listen", "workers", "admin", "user", "group")
"""Keys that only a restart can change: they decide about sockets and processes."""


class ReloadError(Exception):
    """The new configuration cannot be used; the message says where and why."""


def read_certificates(tls: Tls) -> list[CertificatePem]:
    """The certificates of a configuration, proven good; raises CertificateError."""
    found = [
        read_certificate(item.cert, item.key, default=item.default) for item in tls.certificates
    ]
    for pem in found:
        parse_certificate(pem)
    return found


def read_keys(tls: Tls) -> SharedKeys | None:
    """The keys that a fleet shares, if it does; raises SharedKeyError."""
    return None if tls.shared_keys is None else read_shared_keys(tls.shared_keys)


def reread(
    path: str | None, current: Config
) -> tuple[Config, list[CertificatePem], SharedKeys | None]:
    """The configuration at `path` (the current one when None), its certificates and shared keys.

    All or nothing: a change that could not take effect is an error, not half a reload.
    """
    if path is None:
        new = current
    else:
        try:
            new = load_config(path)
        except (ConfigError, OSError) as error:
            raise ReloadError(str(error)) from error
    if not new.tls.certificates:
        # The development certificate that the start has put there.
        new = msgspec.structs.replace(
            new, tls=msgspec.structs.replace(new.tls, certificates=current.tls.certificates)
        )
    for key in FIXED_AT_START:
        if getattr(new, key) != getattr(current, key):
            raise ReloadError(f"{path}: {key}: a change needs a restart")
    try:
        return new, read_certificates(new.tls), read_keys(new.tls)
    except CertificateError as error:
        raise ReloadError(f"tls.certificates: {error}") from error
    except SharedKeyError as error:
        raise ReloadError(f"tls.shared_keys: {error}") from error
