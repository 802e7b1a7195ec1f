"""Which addresses of this machine stand in for those of the configuration."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from quicedge.migrate.verify.message import Sample
from quicedge.migrate.verify.process import accepts


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


class Ports:
    """Ports of 127.0.0.1 for the edges of one verification.

    Each is held by a socket that does not listen: who looks for a free port finds another one,
    while a server that sets SO_REUSEADDR, as all of them do, may listen on it.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A port that nothing uses, and that the kernel gives to no outgoing connection."""
        while True:
            held = socket.socket()
            try:
                # Without the options, or a port that others hold like this would do.
                held.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            except OSError:
                held.close()
                continue
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            self._held.append(held)
            return int(held.getsockname()[1])

    def close(self) -> None:
        for held in self._held:
            held.close()


@dataclass
class Listener:
    """An address that the original listens on."""

    host: str
    """Empty: all addresses."""
    port: int
    local_port: int
    tls: bool = False
    h2: bool = False

    def url(self, host: str) -> str:
        """Scheme and authority of requests to it for a host."""
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        return f"{scheme}://{host}" if self.port == usual else f"{scheme}://{host}:{self.port}"


class Listeners:
    """The addresses that the original listens on, and the ports in their place."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
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
            listener = self._by_address[host, port] = Listener(host, port, self._ports.take())
        listener.tls = listener.tls or tls
        listener.h2 = listener.h2 or h2
        return listener

    def of(self, port: int) -> Listener | None:
        """The one that clients of a port reach: on all addresses, else any."""
        found = [one for one in self if one.port == port]
        return min(found, key=lambda one: one.host != "", default=None)

    def port_for(self, sample: Sample) -> int | None:
        """The local port that a sample is sent to; None: nothing listens there."""
        listener = self.of(sample.port)
        if listener is None or listener.tls is not sample.is_secure:
            return None
        return listener.local_port

    def accept(self) -> bool:
        """Whether something answers on all of them."""
        return all(accepts(listener.local_port, tls=False) for listener in self)

    @property
    def names(self) -> dict[int, str]:
        """The port, as in `:443`, that each local one stands for."""
        return {one.local_port: f":{one.port}" for one in self}

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._by_address.values())
