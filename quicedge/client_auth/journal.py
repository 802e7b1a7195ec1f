"""Counts and logs what became of clients that were asked for a certificate."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from quicedge.client_auth.verdict import RefusedError, Verdict
from quicedge.config.limits import CLIENT_REFUSALS_LOGGED
from quicedge.shares.rates import RateLimit
from quicedge.telemetry.metrics import TlsMetrics
from quicedge.telemetry.protocols import TransportKind

log = structlog.get_logger("quicedge.client_auth")


class Journal:
    """That of one worker. `clock` returns seconds."""

    def __init__(
        self, metrics: dict[TransportKind, TlsMetrics], clock: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lines = RateLimit(CLIENT_REFUSALS_LOGGED)

    def passed(self, transport: TransportKind, *, has_certificate: bool) -> None:
        """A handshake was completed."""
        verdict = Verdict.ACCEPTED if has_certificate else Verdict.NONE
        self._metrics[transport].client_certificate(verdict.value)

    def refused(
        self,
        transport: TransportKind,
        error: RefusedError,
        *,
        client: str,
        server_name: str | None,
    ) -> None:
        """A handshake was refused. Strangers can cause this as often as they like: of the lines,
        only so many are written."""
        self._metrics[transport].client_certificate(error.verdict.value)
        if self._lines.allow(self._clock()):
            log.warning(
                "client certificate refused",
                verdict=error.verdict.value,
                reason=str(error),
                subject=error.subject,
                client=client,
                server_name=server_name,
                transport=transport.value,
            )
