"""From the operator's configuration to aioquic's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any, TextIO
from weakref import WeakValueDictionary

from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite

from quicedge.config import limits
from quicedge.config.schema import Config
from quicedge.config.unusable import UnusableError
from quicedge.quic.packet import VERSION_NUMBERS
from quicedge.telemetry.appending import open_append

ALPN_H3 = "h3"


_open_keylogs: WeakValueDictionary[str, IO[str]] = WeakValueDictionary()
"""One open file per path, for as long as a configuration uses it."""


def _keylog(key: str, path: str) -> TextIO:
    """Its secrets open recorded traffic, so only the owner may read it."""
    found: Any = _open_keylogs.get(path)
    if found is None:
        try:
            descriptor = open_append(path, 0o600)
        except OSError as error:
            raise UnusableError(key, error) from error
        found = _open_keylogs[path] = os.fdopen(descriptor, "a", buffering=1)
    return found


def keylog_file(configured: str | None) -> TextIO | None:
    """The NSS key log, from the configuration or the SSLKEYLOGFILE variable.

    Raises UnusableError.
    """
    if configured is not None:
        return _keylog("tls.keylog", configured)
    path = os.environ.get("SSLKEYLOGFILE")
    return _keylog("SSLKEYLOGFILE", path) if path else None


def server_configuration(
    config: Config,
    alpn_protocols: Sequence[str] = (ALPN_H3,),
    *,
    keylog: bool = True,
) -> QuicConfiguration:
    """What all connections of a worker share; aioquic only reads it.

    Raises UnusableError when the key log (none with `keylog` false) cannot be opened.
    """
    quic = config.quic
    return QuicConfiguration(
        is_client=False,
        alpn_protocols=list(alpn_protocols),
        congestion_control_algorithm=quic.congestion_control,
        idle_timeout=quic.idle_timeout,
        max_data=quic.max_data,
        max_stream_data=quic.max_stream_data,
        max_datagram_size=limits.BASE_DATAGRAM_SIZE,
        secrets_log_file=keylog_file(config.tls.keylog) if keylog else None,
        supported_versions=[VERSION_NUMBERS[name] for name in quic.versions],
    )


def client_configuration(
    server_name: str,
    *,
    ca_file: str | None,
    verify_mode: int,
    alpn_protocols: Sequence[str] = (ALPN_H3,),
    versions: Sequence[str] = ("v1", "v2"),
    only_chacha20: bool = False,
) -> QuicConfiguration:
    """What a client of ours connects with.

    `versions`: the first Initial has version 1; another one that stands before it here is taken
    if the server has it (compatible version negotiation, RFC 9368).
    """
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=list(alpn_protocols),
        congestion_control_algorithm="cubic",
        max_data=limits.CONNECTION_WINDOW,
        max_stream_data=limits.STREAM_WINDOW,
        max_datagram_size=limits.BASE_DATAGRAM_SIZE,
        secrets_log_file=keylog_file(None),
        cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256] if only_chacha20 else None,
        original_version=VERSION_NUMBERS["v1"],
        server_name=server_name,
        supported_versions=[VERSION_NUMBERS[name] for name in versions],
        verify_mode=verify_mode,
    )
    configuration.cafile = ca_file
    return configuration
