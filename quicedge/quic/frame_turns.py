"""Fair sharing of an event loop iteration between clients, measured in frames.

A packet may contain hundreds of frames, each as expensive as a full packet with one. Work is
therefore counted in frames, per source address of the datagrams. Once a client has used up its
share of an iteration (its turn), its further datagrams are queued, within bounds, while others are
served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from quicedge.config.limits import (
    DENSE_CLIENTS_REMEMBERED,
    DENSE_FRAMES_PER_PACKET,
    DENSE_RUN,
    FRAMES_PER_TURN,
    MAX_BATCH_PACKETS,
    WAITING_BYTES,
    WAITING_BYTES_PER_CLIENT,
)


class WaitingRun(NamedTuple):
    """Datagrams received together on one path with one ECN codepoint."""

    datagrams: list[bytes]
    path: Any
    ecn: int


class FrameTurns:
    """Counts frames by client.

    Call `begin` per iteration; per run `may_work`, then `worked`; `wait` with what is left over.
    `take` returns what was queued, the runs of a client in order.
    """

    __slots__ = ("_dense", "_waiting_bytes", "begin", "spent", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        """Frames in this iteration, by client."""
        self.begin = self.spent.clear
        """Start an iteration: every client has a full share."""
        self._dense: dict[str, None] = {}
        """Clients whose packets recently held many frames, the latest last."""
        self.waiting: dict[str, deque[WaitingRun]] = {}
        """What is queued, by client; to be read only, and always the same object: the endpoint
        refers to it."""
        self._waiting_bytes: dict[str, int] = {}
        self.waiting_bytes = 0
        """Bytes of queued datagrams."""

    def may_work(self, client: str) -> bool:
        """Whether a client has a share left and nothing queued."""
        return client not in self.waiting and self.spent.get(client, 0) < FRAMES_PER_TURN

    def run_length(self, client: str) -> int:
        """Maximum packets per run: few for a client whose packets hold many frames."""
        return DENSE_RUN if client in self._dense else MAX_BATCH_PACKETS

    def worked(self, client: str, packets: int, frames: int) -> bool:
        """Record what was processed; returns whether the client has a share left."""
        spent = self.spent[client] = self.spent.get(client, 0) + frames
        if self._dense:
            self._dense.pop(client, None)
        if frames > packets * DENSE_FRAMES_PER_PACKET:
            self._dense[client] = None
            if len(self._dense) > DENSE_CLIENTS_REMEMBERED:
                del self._dense[next(iter(self._dense))]
        return spent < FRAMES_PER_TURN

    def wait(self, client: str, run: WaitingRun) -> bool:
        """Queue datagrams for a later iteration; False if there is no room and they are dropped."""
        size = sum(map(len, run.datagrams))
        held = self._waiting_bytes.get(client, 0)
        if held + size > WAITING_BYTES_PER_CLIENT or self.waiting_bytes + size > WAITING_BYTES:
            return False
        self.waiting.setdefault(client, deque()).append(run)
        self._waiting_bytes[client] = held + size
        self.waiting_bytes += size
        return True

    def take(self) -> Iterator[tuple[str, deque[WaitingRun]]]:
        """Remove and return what was queued, by client."""
        waiting = list(self.waiting.items())
        self.waiting.clear()
        self._waiting_bytes.clear()
        self.waiting_bytes = 0
        yield from waiting
