"""Sees when files of certificates change, as certbot and Kubernetes change them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from quicedge.config.certificate_files import certificate_files
from quicedge.config.limits import PEM_POLL_INTERVAL
from quicedge.config.schema import Tls

log = structlog.get_logger(__name__)

Signature = tuple[tuple[str, tuple[int, ...] | None], ...]


def signature(tls: Tls) -> Signature:
    """What changes whenever a file of a certificate does, or there are others."""
    return tuple(
        (path, _version(path))
        for files in certificate_files(tls)
        for path in (files.cert, files.key)
    ) + tuple(
        (path, _version(path))
        for entry in tls.client_auth
        for path in (entry.client_ca, *entry.crl)
    )


def _version(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # of what a link leads to: that is what Kubernetes replaces
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


class PemWatch:
    """Calls `changed` when the files of certificates are others than before.

    Files are looked at, not subscribed to: notifications of the kernel do not come from network
    file systems, and not for the links that Kubernetes swaps.
    """

    def __init__(self, tls: Callable[[], Tls], changed: Callable[[], Awaitable[None]]) -> None:
        self._tls = tls
        self._changed = changed
        self._seen: Signature = ()

    async def run(self, interval: float = PEM_POLL_INTERVAL) -> None:
        """Watch until cancelled; what there is now counts as known."""
        self._seen = await asyncio.to_thread(signature, self._tls())
        while True:
            await asyncio.sleep(interval)
            found = await asyncio.to_thread(signature, self._tls())
            if found != self._seen:
                self._seen = found
                log.info("files of certificates have changed")
                try:
                    await self._changed()
                except Exception:
                    log.exception("files of certificates: unexpected error")
