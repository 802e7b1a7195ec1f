"""Who waits for a scarce thing, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from quicedge.shares.client import Client
from quicedge.shares.pool import Pool

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items that wait, each for a client; the places are shared out fairly too (`Pool`).

    Networks take turns, in a network its addresses do, and the items of one address come in the
    order in which they were put. Each operation costs the same however many wait, but for clients
    that may take nothing, which `next` passes over. A client of None is the edge itself.
    """

    __slots__ = ("_networks", "_places")

    def __init__(self, places: int) -> None:
        self._places = Pool(places)
        self._networks: dict[bytes, dict[bytes, dict[Item, Client | None]]] = {}

    def __len__(self) -> int:
        return self._places.held

    def __iter__(self) -> Iterator[Item]:
        """All items; those of one address in their order."""
        for addresses in self._networks.values():
            for items in addresses.values():
                yield from items

    def put(self, item: Item, client: Client | None) -> bool:
        """Let an item wait that does not wait yet; False when its client has no place left."""
        if not self._places.may_take(client):
            return False
        self._places.take(client)
        prefix, address = _keys(client)
        self._networks.setdefault(prefix, {}).setdefault(address, {})[item] = client
        return True

    def remove(self, item: Item, client: Client | None) -> None:
        """Let an item wait no longer; nothing happens when it does not."""
        prefix, address = _keys(client)
        addresses = self._networks.get(prefix, {})
        items = addresses.get(address, {})
        if item not in items:
            return
        del items[item]
        self._places.give_back(client)
        if not items:
            del addresses[address]
        if not addresses:
            del self._networks[prefix]

    def next(self, may_take: Callable[[Client | None], bool]) -> Item | None:
        """The item whose turn it is, among those of clients that may take something.

        It keeps its place until `take` or `remove`.
        """
        for addresses in self._networks.values():
            for items in addresses.values():
                item, client = next(iter(items.items()))
                if may_take(client):
                    return item
        return None

    def take(self, item: Item, client: Client | None) -> None:
        """Remove an item that got what it waited for; its address and its network go last."""
        self.remove(item, client)
        prefix, address = _keys(client)
        addresses = self._networks.pop(prefix, None)
        if addresses is None:
            return
        items = addresses.pop(address, None)
        if items is not None:
            addresses[address] = items
        self._networks[prefix] = addresses


def _keys(client: Client | None) -> tuple[bytes, bytes]:
    return (b"", b"") if client is None else (client.prefix, client.address)
