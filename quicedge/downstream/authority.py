"""For which hosts a connection is authoritative (RFC 9110 section 4.3.3)."""

from __future__ import annotations

from typing import Protocol


class Certificate(Protocol):
    def covers(self, host: str) -> bool:
        """Whether one of its names is, or matches, the host."""


def is_authoritative(certificate: Certificate | None, server_name: str | None, host: str) -> bool:
    """Whether a connection may be asked for a lower-case host.

    `certificate`: the one that was served for `server_name`; None: nothing is known of it.
    """
    return certificate is None or host == (server_name or host).lower() or certificate.covers(host)
