"""Where an origin server listens."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from quicedge.config.addresses import server_problem


@dataclass(frozen=True, slots=True)
class Address:
    """A server of an upstream. `text` names it in logs and stats: `host:port` or `unix:/path`."""

    text: str
    host: str = ""
    port: int = 0
    tls: bool = False
    unix: str | None = None

    @property
    def authority(self) -> str:
        """What a request of the edge's own names as its host."""
        return "localhost" if self.unix is not None else self.text


def parse_server(url: str) -> Address:
    """The address in `http://host:port`, `https://host` or `unix:/path`; raises ValueError."""
    problem = server_problem(url)
    if problem:
        raise ValueError(f"{url!r}: {problem}")
    if url.startswith("unix:"):
        return Address(url, unix=url.removeprefix("unix:"))
    parts = urlsplit(url)
    assert parts.hostname is not None
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.hostname, port, tls)
