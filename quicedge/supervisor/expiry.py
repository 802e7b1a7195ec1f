"""Warnings about expiring certificates: at start, after a reload, and daily."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Iterable

import structlog

from quicedge.admin.view import CertificateStatus
from quicedge.config.limits import CERTIFICATE_CHECK_INTERVAL, CERTIFICATE_EXPIRY_WARNING
from quicedge.quic.tls import CertificatePem, validity

log = structlog.get_logger(__name__)

_NAMES_SHOWN = 5


class CertificateWatch:
    """Tracks the certificates in use. `clock` is the wall clock, in seconds since the epoch."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        interval: float = CERTIFICATE_CHECK_INTERVAL,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self.status: list[CertificateStatus] = []

    def use(self, certificates: Iterable[CertificatePem]) -> None:
        """Track these certificates from now on and report their problems at once."""
        self.status = []
        for pem in certificates:
            found = validity(pem)
            self.status.append(
                CertificateStatus(
                    file=pem.cert_file,
                    names=sorted(found.names),
                    not_before=found.not_before,
                    not_after=found.not_after,
                )
            )
        self.report()

    def report(self) -> None:
        """Log each certificate that clients reject, or soon will."""
        now = self._clock()
        for status in self.status:
            left = status.not_after - now
            about = {"file": status.file, "names": status.names[:_NAMES_SHOWN]}
            if left <= 0:
                log.error("certificate expired", since=_date(status.not_after), **about)
            elif status.not_before > now:
                log.error(
                    "certificate not yet valid",
                    valid_from=_date(status.not_before),
                    **about,
                )
            elif left < _warned_before(status):
                log.warning(
                    "certificate expires soon",
                    days_left=int(left // 86400),
                    expires=_date(status.not_after),
                    **about,
                )

    async def run(self) -> None:
        """Report periodically until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self.report()


def _warned_before(status: CertificateStatus) -> float:
    """Seconds before the expiry from which on to warn: a sixth of a short life, when a renewal at
    two thirds of it is long overdue."""
    return min(CERTIFICATE_EXPIRY_WARNING, (status.not_after - status.not_before) / 6)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="minutes")
