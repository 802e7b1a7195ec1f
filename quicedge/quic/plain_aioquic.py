"""Imports aioquic's TLS without what only clients need: the libraries that verify a server.

service_identity, pyOpenSSL and certifi cost a process 3 MB and forty milliseconds. They are
imported when they are used, which is when a client verifies its first server.
"""

from __future__ import annotations

from quicedge.deferred import Deferred, import_with

_openssl = Deferred("OpenSSL")
_openssl.crypto = Deferred("OpenSSL.crypto")  # type: ignore[attr-defined]

import_with(
    "aioquic.tls",
    {
        "service_identity": Deferred("service_identity"),
        "OpenSSL": _openssl,
        "OpenSSL.crypto": _openssl.crypto,
        "certifi": Deferred("certifi"),
    },
)
