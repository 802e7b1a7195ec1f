"""Names that clients ask for and that have no certificate yet, for certificates on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quicedge.acme.names import on_demand_problem
from quicedge.config.acmelimits import (
    ON_DEMAND_REFUSALS,
    ON_DEMAND_REFUSED_FOR,
    ON_DEMAND_REPORT_DELAY,
    ON_DEMAND_REPORTED,
)
from quicedge.config.schema import Config


class MissingNames:
    """Tells the supervisor of them, each once at a time and few at once."""

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]
    ) -> None:
        self.send: Callable[[list[str]], None] = lambda names: None
        self._loop = loop
        self._clock = clock
        self._fresh: set[str] = set()
        self._refused: dict[str, float] = {}
        """Names that get no certificate, until when; oldest first."""
        self._config: Config | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        acme = config.tls.acme
        new = config if acme is not None and acme.on_demand is not None else None
        if new != self._config:
            self._config = new
            self._refused.clear()

    def note(self, name: str) -> None:
        """A client asks for a name that has no certificate (`CertificateStore.on_missing`)."""
        if not self.may_come(name) or len(self._fresh) >= ON_DEMAND_REPORTED:
            return
        name = name.lower().rstrip(".")
        if not self._fresh:
            self._loop.call_later(ON_DEMAND_REPORT_DELAY, self._report)
        self._fresh.add(name)

    def may_come(self, name: str) -> bool:
        """Whether the supervisor may get a certificate for it."""
        if self._config is None:
            return False
        name = name.lower().rstrip(".")
        until = self._refused.get(name)
        if until is not None:
            if until > self._clock():
                return False
            del self._refused[name]
        return on_demand_problem(self._config, name) is None

    def refuse(self, names: list[str]) -> None:
        """The supervisor gets no certificates for these names."""
        until = self._clock() + ON_DEMAND_REFUSED_FOR
        for name in names:
            self._refused.pop(name, None)
            self._refused[name] = until
        while len(self._refused) > ON_DEMAND_REFUSALS:
            del self._refused[next(iter(self._refused))]

    def _report(self) -> None:
        names, self._fresh = sorted(self._fresh), set()
        self.send(names)
