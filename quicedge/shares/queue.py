"""A fair queue for a scarce resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from quicedge.shares.client import Client
from quicedge.shares.pool import Pool

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Waiting items, each on behalf of a client; the places are shared fairly too (`Pool`).

    Networks take turns, within a network its addresses do, and the items of one address are served
    in the order in which they were put. Each operation takes constant time, except that `next`
    skips clients that may take nothing. A client of None is the edge itself.
    """

    __slots__ = ("_places", "networks")

    def __init__(self, places: int) -> None:
        self._places = Pool(places)
        self.networks: dict[bytes, dict[bytes, dict[Item, Client | None]]] = {}
        """What is queued, by network and address; to be read only."""

    def __len__(self) -> int:
        return self._places.held

    def __iter__(self) -> Iterator[Item]:
        """All items; those of one address in order."""
        for addresses in self.networks.values():
            for items in addresses.values():
                yield from items

    def put(self, item: Item, client: Client | None) -> bool:
        """Add an item that is not queued yet; False if its client has no place left."""
        if not self._places.may_take(client):
            return False
        self._places.take(client)
        prefix, address = _keys(client)
        self.networks.setdefault(prefix, {}).setdefault(address, {})[item] = client
        return True

    def remove(self, item: Item, client: Client | None) -> None:
        """Remove an item, if it is queued."""
        prefix, address = _keys(client)
        addresses = self.networks.get(prefix, {})
        items = addresses.get(address, {})
        if item not in items:
            return
        del items[item]
        self._places.give_back(client)
        if not items:
            del addresses[address]
        if not addresses:
            del self.networks[prefix]

    def next(self, may_take: Callable[[Client | None], bool]) -> Item | None:
        """The next item among those of clients that may take a unit.

        It keeps its place until `take` or `remove`.
        """
        for addresses in self.networks.values():
            for items in addresses.values():
                item, client = next(iter(items.items()))
                if may_take(client):
                    return item
        return None

    def take(self, item: Item, client: Client | None) -> None:
        """Remove an item that was served; its address and its network move to the back."""
        self.remove(item, client)
        prefix, address = _keys(client)
        addresses = self.networks.pop(prefix, None)
        if addresses is None:
            return
        items = addresses.pop(address, None)
        if items is not None:
            addresses[address] = items
        self.networks[prefix] = addresses


def _keys(client: Client | None) -> tuple[bytes, bytes]:
    return (b"", b"") if client is None else (client.prefix, client.address)
