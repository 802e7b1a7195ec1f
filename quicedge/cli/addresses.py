"""Name resolution for the client: `--resolve` entries, then the system's resolver."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any

from quicedge.config.host_port import HostPort

ANY_HOST = "*"
_ENTRY = re.compile(r"((?:\[[^\]]*\]|[^:\[\]]+):[1-9][0-9]*):(.*)")


class ResolveError(ValueError):
    """An invalid `--resolve` entry; the message says why."""


class Addresses:
    """`HOST:PORT:ADDRESS[,ADDRESS]...` entries as in curl; `*` matches any HOST."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._given: dict[tuple[str, int], list[str]] = {}
        for entry in entries:
            given, addresses = self._parse(entry)
            self._given[given] = addresses

    @staticmethod
    def _parse(entry: str) -> tuple[HostPort, list[str]]:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ResolveError(f"{entry!r} is not HOST:PORT:ADDRESS")
        try:
            given = HostPort.parse(match[1].lower())
        except ValueError as error:
            raise ResolveError(f"{entry!r}: {error}") from None
        found = [item.strip("[]") for item in match[2].split(",")]
        for address in found:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ResolveError(f"{entry!r}: {address!r} is not an IP address") from None
        return given, found

    async def find(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """Socket addresses to try, in order; raises OSError."""
        given = self._given.get((host, port)) or self._given.get((ANY_HOST, port)) or [host]
        loop = asyncio.get_running_loop()
        found: list[tuple[Any, ...]] = []
        for name in given:
            answers = await loop.getaddrinfo(name, port, type=socket.SOCK_DGRAM)
            found += [address for *_, address in answers]
        return found
