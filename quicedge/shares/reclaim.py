"""Taking units of a scarce resource from stalled clients for those that wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from quicedge.shares.client import Client
from quicedge.shares.pool import Pool


class Claim(Protocol):
    """A request that holds a unit or waits for one."""

    client: Client | None


Holder = TypeVar("Holder", bound=Claim)


def to_reclaim(pool: Pool, stalled: Iterable[Holder], waiting: Iterable[Claim]) -> list[Holder]:
    """The stalled holders that must give up their units, those of the largest clients first.

    One for each waiting request of a client that holds less than the holder's client, or is the
    same. A client that waits only because it holds its share takes nothing from others.
    """

    def held(claim: Claim) -> int:
        return pool.held_by(claim.client)

    victims = []
    # The neediest first: once a waiting client holds as much as a holder's, so do all others.
    queue = sorted(waiting, key=held, reverse=True)
    for holder in sorted(stalled, key=held, reverse=True):
        if not queue:
            break
        neediest = queue[-1]
        if held(neediest) < held(holder) or neediest.client == holder.client:
            queue.pop()
            victims.append(holder)
    return victims
