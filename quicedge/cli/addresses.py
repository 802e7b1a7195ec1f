"""Where a client connects: what `--resolve` says, else what the system's resolver does."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

ANY_HOST = "*"


class ResolveError(ValueError):
    """A `--resolve` entry that cannot be used; the message says why."""


class Addresses:
    """`HOST:PORT:ADDRESS[,ADDRESS]...` entries as curl has them; a HOST of `*` stands for all."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._given: dict[tuple[str, int], list[str]] = {}
        for entry in entries:
            host, port, addresses = self._parse(entry)
            self._given[host, port] = addresses

    @staticmethod
    def _parse(entry: str) -> tuple[str, int, list[str]]:
        host, _, rest = entry.partition(":")
        if entry.startswith("["):
            host, _, rest = entry[1:].partition("]:")
        port, _, addresses = rest.partition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ResolveError(f"{entry!r} is not HOST:PORT:ADDRESS")
        found = [item.strip("[]") for item in addresses.split(",")]
        for address in found:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ResolveError(f"{entry!r}: {address!r} is not an IP address") from None
        return host.lower(), int(port), found

    async def find(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """Socket addresses to try, in order; raises OSError."""
        given = self._given.get((host, port)) or self._given.get((ANY_HOST, port)) or [host]
        loop = asyncio.get_running_loop()
        found: list[tuple[Any, ...]] = []
        for name in given:
            answers = await loop.getaddrinfo(name, port, type=socket.SOCK_DGRAM)
            found += [address for *_, address in answers]
        return found
