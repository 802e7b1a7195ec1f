"""A scarce resource, shared by dynamic thresholds.

Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches" (IEEE/ACM
Transactions on Networking 6(2), 1998): a client may take more as long as it holds less than a
fixed multiple of what is free. A single client gets most of it; the more there are, the less each
may hold, and some of it stays free for the next one. Nothing is reserved or configured per client,
and a plentiful resource costs two dictionary lookups.
"""

from __future__ import annotations

from quicedge.config import limits
from quicedge.shares.client import Client


class Pool:
    """`capacity` units of a resource, and how many of them each client and each network holds.

    Call `may_take` before `take`; everything taken must be given back for the same client and in
    the same total amount. A client of None is the edge itself (health checks), which is limited by
    the capacity only.
    """

    __slots__ = ("_by_address", "_by_prefix", "capacity", "held")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        """Units in use; may exceed `capacity` after it was lowered or `may_take` was ignored."""
        self._by_address: dict[bytes, int] = {}
        self._by_prefix: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Units that are free; never negative."""
        return max(self.capacity - self.held, 0)

    def held_by(self, client: Client | None) -> int:
        """Units held by the client's address; those of the edge itself are not counted."""
        return 0 if client is None else self._by_address.get(client.address, 0)

    def may_take(self, client: Client | None) -> bool:
        """Whether a unit is free and the client holds less than its share."""
        free = self.capacity - self.held
        if free <= 0:
            return False
        return client is None or (
            self._by_address.get(client.address, 0) < limits.SHARE_OF_ADDRESS * free
            and self._by_prefix.get(client.prefix, 0) < limits.SHARE_OF_PREFIX * free
        )

    def take(self, client: Client | None, amount: int = 1) -> None:
        """Record that the client holds `amount` more units (fewer if negative)."""
        self.held += amount
        if client is None:
            return
        for counts, key in (self._by_address, client.address), (self._by_prefix, client.prefix):
            count = counts.get(key, 0) + amount
            if count > 0:
                counts[key] = count
            else:
                counts.pop(key, None)

    def give_back(self, client: Client | None, amount: int = 1) -> None:
        """Record that the client holds `amount` fewer units."""
        self.take(client, -amount)
