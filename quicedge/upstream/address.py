"""Addresses of origin servers."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from quicedge.config.addresses import server_problem
from quicedge.config.host_port import HostPort


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server. `text` is its name in logs: `host:port` or `unix:/path`."""

    text: str
    host: str = ""
    port: int = 0
    tls: bool = False
    unix: str | None = None

    @property
    def authority(self) -> str:
        """The authority for requests that the edge itself makes."""
        return "localhost" if self.unix is not None else self.text


def parse_server(url: str) -> Address:
    """Parse `http://host:port`, `https://host` or `unix:/path`; raises ValueError."""
    problem = server_problem(url)
    if problem:
        raise ValueError(f"{url!r}: {problem}")
    if url.startswith("unix:"):
        return Address(url, unix=url.removeprefix("unix:"))
    parts = urlsplit(url)
    assert parts.hostname is not None
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Address(str(HostPort(parts.hostname, port)), parts.hostname, port, tls)
