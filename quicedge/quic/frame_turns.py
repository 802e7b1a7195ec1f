"""How much of the loop one client may have: frames per turn, and what waits for the next.

A packet may hold hundreds of frames, each of which costs as much as a full packet of one. So work
is counted in frames, by the address that datagrams claim to come from. Once a client has used up
its turn, its further datagrams wait, within bounds, while others are served.
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
    """Datagrams that came together on one path with one ECN codepoint."""

    datagrams: list[bytes]
    path: Any
    ecn: int


class FrameTurns:
    """Counts frames by client. Ask `may_work`, then `worked`; `wait` with what is left over.

    `begin` starts a turn. `take` hands out what waits, a client's runs in their order.
    """

    __slots__ = ("_dense", "_spent", "_waiting", "_waiting_bytes", "waiting_bytes")

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}
        self._dense: dict[str, None] = {}
        """Clients whose packets held many frames lately, the latest last."""
        self._waiting: dict[str, deque[WaitingRun]] = {}
        self._waiting_bytes: dict[str, int] = {}
        self.waiting_bytes = 0
        """Bytes of datagrams that wait."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def begin(self) -> None:
        """Start a turn: every client may work again."""
        self._spent.clear()

    def may_work(self, client: str) -> bool:
        """Whether a client has frames left in this turn, and nothing of it waits."""
        return client not in self._waiting and self._spent.get(client, 0) < FRAMES_PER_TURN

    def run_length(self, client: str) -> int:
        """Packets to hand over in one go: few of a client whose packets hold many frames."""
        return DENSE_RUN if client in self._dense else MAX_BATCH_PACKETS

    def worked(self, client: str, packets: int, frames: int) -> bool:
        """Note what was handled; whether the client may go on."""
        spent = self._spent[client] = self._spent.get(client, 0) + frames
        self._dense.pop(client, None)
        if frames > packets * DENSE_FRAMES_PER_PACKET:
            self._dense[client] = None
            if len(self._dense) > DENSE_CLIENTS_REMEMBERED:
                del self._dense[next(iter(self._dense))]
        return spent < FRAMES_PER_TURN

    def wait(self, client: str, run: WaitingRun) -> bool:
        """Keep datagrams for a later turn; False when there is no room, and they are lost."""
        size = sum(map(len, run.datagrams))
        held = self._waiting_bytes.get(client, 0)
        if held + size > WAITING_BYTES_PER_CLIENT or self.waiting_bytes + size > WAITING_BYTES:
            return False
        self._waiting.setdefault(client, deque()).append(run)
        self._waiting_bytes[client] = held + size
        self.waiting_bytes += size
        return True

    def take(self) -> Iterator[tuple[str, deque[WaitingRun]]]:
        """What waits, by client; it waits no longer."""
        waiting, self._waiting = self._waiting, {}
        self._waiting_bytes.clear()
        self.waiting_bytes = 0
        yield from waiting.items()
