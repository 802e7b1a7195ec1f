"""From the operator's configuration to aioquic's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

from aioquic.quic.configuration import QuicConfiguration

from quicedge.config import limits
from quicedge.config.schema import Config
from quicedge.quic.packet import VERSION_NUMBERS
from quicedge.quic.tls import CertificateStore

ALPN_H3 = "h3"


@cache
def _keylog(path: str) -> TextIO:
    """One open file a process; its secrets open recorded traffic, so only the owner may read."""
    descriptor = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return os.fdopen(descriptor, "a", buffering=1)


def keylog_file(configured: str | None) -> TextIO | None:
    """The NSS key log, from the configuration or the SSLKEYLOGFILE variable."""
    path = configured or os.environ.get("SSLKEYLOGFILE")
    return _keylog(path) if path else None


def server_configuration(
    config: Config, certificates: CertificateStore, alpn_protocols: Sequence[str] = (ALPN_H3,)
) -> QuicConfiguration:
    """What all connections of a worker share; aioquic only reads it."""
    quic = config.quic
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=list(alpn_protocols),
        congestion_control_algorithm=quic.congestion_control,
        idle_timeout=quic.idle_timeout,
        max_data=quic.max_data,
        max_stream_data=quic.max_stream_data,
        max_datagram_size=limits.BASE_DATAGRAM_SIZE,
        secrets_log_file=keylog_file(config.tls.keylog),
        supported_versions=[VERSION_NUMBERS[name] for name in quic.versions],
    )
    # aioquic insists on a certificate up front; the one served is chosen by name later.
    configuration.certificate = certificates.default.leaf
    configuration.private_key = certificates.default.private_key
    return configuration


def client_configuration(
    server_name: str, *, ca_file: str | None, verify_mode: int
) -> QuicConfiguration:
    """What a client of ours connects with."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[ALPN_H3],
        congestion_control_algorithm="cubic",
        max_data=limits.CONNECTION_WINDOW,
        max_stream_data=limits.STREAM_WINDOW,
        max_datagram_size=limits.BASE_DATAGRAM_SIZE,
        secrets_log_file=keylog_file(None),
        server_name=server_name,
        verify_mode=verify_mode,
    )
    configuration.cafile = ca_file
    return configuration
