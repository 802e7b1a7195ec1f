"""Addresses of origin servers."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from quicedge.config.addresses import server_problem, service_problem
from quicedge.config.host_port import HostPort
from quicedge.config.schema import Discover, OriginServer


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server. `text` is its name in logs: `host:port` or `unix:/path`."""

    text: str
    host: str = ""
    port: int = 0
    tls: bool = False
    unix: str | None = None
    name: str = ""
    """The name that stands for it and that its certificate is for; empty: `host`."""

    @property
    def authority(self) -> str:
        """The authority for requests that the edge itself makes."""
        if self.unix is not None:
            return "localhost"
        return str(HostPort(self.name, self.port)) if self.name else self.text

    def at(self, host: str, port: int) -> Address:
        """The address of one of the servers that this one stands for."""
        name = (self.name or self.host).removesuffix(".")
        return Address(str(HostPort(host, port)), host, port, self.tls, name=name)


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


def parse_service(url: str) -> Address:
    """Parse `http://_http._tcp.example.com`, what servers of SRV records have in common; raises
    ValueError.

    Certificates are for the domain that offers the service, not for the targets: only the former is
    known without trust in DNS (RFC 9525 section 6.3).
    """
    problem = service_problem(url)
    if problem:
        raise ValueError(f"{url!r}: {problem}")
    parts = urlsplit(url)
    assert parts.hostname is not None
    labels = parts.hostname.split(".")
    domain = ".".join(label for label in labels if not label.startswith("_"))
    return Address(
        parts.hostname, parts.hostname, tls=parts.scheme == "https", name=domain or parts.hostname
    )


def address_of(origin: OriginServer) -> Address:
    """Of a server, or what all that a name stands for have in common; raises ValueError."""
    parse = parse_service if origin.discover is Discover.SRV else parse_server
    return parse(origin.url)
