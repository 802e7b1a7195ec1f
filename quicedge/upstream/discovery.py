"""Keeps the servers of one name current, as DNS changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.telemetry.discovery import DiscoveryStats
from quicedge.upstream.discovered import Answer, Discovered, DiscoveryError

log = structlog.get_logger(__name__)


class Discovery:
    """Looks a name up again whenever its records expire.

    While it cannot be looked up, or no longer stands for any server, the last ones stay: a broken
    resolver must not cause an outage. `changed` is called when they change, and after the first
    look-up.
    """

    def __init__(
        self,
        upstream: str,
        name: str,
        look_up: Callable[[], Awaitable[Answer]],
        changed: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        *,
        known: frozenset[Discovered] = frozenset(),
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`known`: servers from before a reload; `draw`: random numbers below 1."""
        self.upstream = upstream
        self.name = name
        self.servers = known
        self.has_looked_up = False
        """Whether a look-up has ended."""
        self._look_up = look_up
        self._changed = changed
        self._loop = loop
        self._draw = draw
        self._problem = ""
        self._answered_at: float | None = None
        self._look_ups = 0
        self._failures = 0
        self._failed = 0
        """Look-ups in a row."""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle = loop.call_soon(self._start)

    def close(self) -> None:
        """Look nothing up anymore."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def stats(self) -> DiscoveryStats:
        """Its state."""
        age = None if self._answered_at is None else self._loop.time() - self._answered_at
        return DiscoveryStats(
            self.name, len(self.servers), age, self._look_ups, self._failures, self._problem
        )

    def _start(self) -> None:
        self._look_ups += 1
        self._task = self._loop.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            answer = await self._look_up()
        except DiscoveryError as error:
            delay = self._refused(str(error))
        except Exception as error:  # the library's fault, not that of requests
            log.exception("discovery failed", upstream=self.upstream, name=self.name)
            delay = self._refused(f"{type(error).__name__}: {error}")
        else:
            delay = self._answered(answer)
        # Later, never earlier: caches would still have the same. Workers do not ask in step.
        delay *= 1 + limits.DISCOVERY_JITTER * self._draw()
        self._timer = self._loop.call_later(delay, self._start)

    def _answered(self, answer: Answer) -> float:
        self._failed = 0
        self._answered_at = self._loop.time()
        self._say(answer.problem, "upstream's servers are known in part")
        is_first, self.has_looked_up = not self.has_looked_up, True
        if answer.servers != self.servers:
            before, self.servers = self.servers, answer.servers
            self._log_change(before, answer.servers)
            self._changed()
        elif is_first:
            self._changed()
        return answer.refresh_after

    def _refused(self, problem: str) -> float:
        self._failures += 1
        self._failed += 1
        self._say(problem, "upstream's servers cannot be looked up")
        if not self.has_looked_up:
            self.has_looked_up = True
            self._changed()
        delay = limits.DISCOVERY_RETRY * 2.0 ** min(self._failed - 1, 16)
        return min(delay, limits.DISCOVERY_MAX_RETRY)

    def _say(self, problem: str, message: str) -> None:
        """Log when a problem comes or goes."""
        if problem and not self._problem:
            log.warning(
                message,
                upstream=self.upstream,
                name=self.name,
                problem=problem,
                servers=len(self.servers),
            )
        elif self._problem and not problem:
            log.info(
                "upstream's servers can be looked up again", upstream=self.upstream, name=self.name
            )
        self._problem = problem

    def _log_change(self, before: frozenset[Discovered], after: frozenset[Discovered]) -> None:
        old = {(server.host, server.port) for server in before}
        new = {(server.host, server.port) for server in after}
        log.info(
            "upstream's servers changed",
            upstream=self.upstream,
            name=self.name,
            servers=len(new),
            added=_few(new - old),
            removed=_few(old - new),
        )


def _few(servers: set[tuple[str, int]]) -> str:
    """Some of them, for people."""
    shown = sorted(str(HostPort(host, port)) for host, port in servers)
    more = len(shown) - limits.DISCOVERY_SHOWN
    return ", ".join(shown[: limits.DISCOVERY_SHOWN]) + (f" and {more} more" if more > 0 else "")
