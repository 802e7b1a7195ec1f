"""Whether requests in 0-RTT data may run before the handshake is complete (RFC 8470)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from quicedge import __version__
from quicedge.config.schema import Config
from quicedge.quic.anti_replay import EarlyDataGuard, EarlyDataUse
from quicedge.telemetry.outcomes import EarlyDataVerdict

if TYPE_CHECKING:
    from quicedge.downstream.shared_anti_replay import ReplayStore, SharedAntiReplay

SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""Methods whose requests may be replayed without harm (RFC 9110 section 9.2.1)."""


def early_data_terms(config: Config) -> bytes | None:
    """The parameters that 0-RTT clients remember and that must not change; None: no early data.

    They are the limits of RFC 9000 section 7.4.1 and RFC 9114 section 7.2.4.2. Limits that cannot
    be configured are represented by the version.
    """
    quic = config.quic
    if not quic.early_data:
        return None
    limits = (quic.max_data, quic.max_stream_data, quic.max_streams, config.http3, __version__)
    return repr(limits).encode()


class EarlyData:
    """Decides for a worker's connections whether their early data is used for the first time.

    It asks the worker's own register, or the fleet's if there is one (`limits.redis`). `configure`
    may be called at any time; `close` last.
    """

    def __init__(
        self,
        guard: EarlyDataGuard,
        config: Config,
        open_store: Callable[[str], ReplayStore] | None = None,
    ) -> None:
        self._guard = guard
        self._open_store = open_store
        self._url: str | None = None
        self._fleet: SharedAntiReplay | None = None
        self._task: asyncio.Task[None] | None = None
        self._verdicts: Counter[EarlyDataVerdict] = Counter()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use the register of this configuration from now on."""
        url = config.limits.redis if config.quic.early_data else None
        if url == self._url:
            return
        self.close()
        self._url = url
        if url is None:
            self._guard.register = self._guard.process
        else:
            # Imported only where it is needed: most edges are alone.
            from quicedge.downstream.shared_anti_replay import RedisReplayStore, SharedAntiReplay

            open_store = self._open_store or RedisReplayStore
            # Tickets allow early data only once the identity of the store is known.
            self._guard.register = None
            self._fleet = SharedAntiReplay(open_store(url), self._found)
            self._task = asyncio.get_running_loop().create_task(self._fleet.run())

    def _found(self, register: bytes) -> None:
        self._guard.register = register

    def is_first(self, use: EarlyDataUse | None, on_first: Callable[[], None]) -> bool:
        """Whether requests in early data may run now; otherwise `on_first` is called once they may.

        With None, or a ticket of an unknown register, they wait for the handshake.
        """
        if use is None:
            return False
        if use.register == self._guard.process:
            self._verdicts[EarlyDataVerdict.FIRST] += 1
            return True
        if self._fleet is not None:
            self._fleet.ask(use, on_first)
        return False

    @property
    def verdicts(self) -> Counter[EarlyDataVerdict]:
        """Connections with requests in early data, by the verdict on their tickets."""
        return self._verdicts if self._fleet is None else self._verdicts + self._fleet.verdicts

    def close(self) -> None:
        """Disconnect from the fleet."""
        if self._task is not None:
            self._task.cancel()
        if self._fleet is not None:
            self._verdicts += self._fleet.verdicts
        self._fleet = self._task = None
