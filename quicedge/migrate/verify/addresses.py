"""Which addresses of this machine stand in for those of the configuration."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass


def canonical_address(text: str, default_port: int) -> str:
    """An address as `host:port` in lower case, or as `unix:/path`."""
    if text.startswith("unix:"):
        return text.rstrip(":")
    host, port = _split(text.lower())
    return f"{host}:{port or default_port}"


def split_url(text: str) -> tuple[str, str, str]:
    """Scheme, authority and the rest of what may be a URL without any of them."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if rest.startswith("unix:"):
        path, colon, uri = rest[5:].partition(":")
        return scheme, f"unix:{path}", colon and uri
    match = re.match(r"[^/?]*", rest)
    authority = match[0] if match else ""
    return scheme, authority, rest[len(authority) :]


def _split(text: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `[v6]:port`."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?", text)
    if match is None:
        return text, None
    return match[1], int(match[2]) if match[2] else None


def free_port() -> int:
    """A port of 127.0.0.1 that nothing uses, and that the kernel gives to no connection."""
    while True:
        port = random.randrange(10_000, 32_000)
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port


@dataclass
class Listener:
    """An address that the original listens on."""

    host: str
    """Empty: all addresses."""
    port: int
    local_port: int
    tls: bool = False
    h2: bool = False


class Listeners:
    """The addresses that the original listens on, and the ports in their place."""

    def __init__(self) -> None:
        self._by_address: dict[tuple[str, int], Listener] = {}

    def at(self, address: str, *, tls: bool, h2: bool) -> Listener | None:
        """The listener of an argument of `listen`; None: a unix socket, which no client reaches."""
        if address.startswith("unix:"):
            return None
        if address.isdigit():
            address = f"*:{address}"
        host, port = _split(address)
        port = port or 80
        if host in ("*", "[::]", "0.0.0.0"):
            host = ""
        listener = self._by_address.get((host, port))
        if listener is None:
            listener = self._by_address[host, port] = Listener(host, port, free_port())
        listener.tls = listener.tls or tls
        listener.h2 = listener.h2 or h2
        return listener

    def of(self, port: int) -> Listener | None:
        """The one that clients of a port reach: on all addresses, else any."""
        found = [one for one in self if one.port == port]
        return min(found, key=lambda one: one.host != "", default=None)

    @property
    def names(self) -> dict[int, str]:
        """The port, as in `:443`, that each local one stands for."""
        return {one.local_port: f":{one.port}" for one in self}

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._by_address.values())
