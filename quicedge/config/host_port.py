"""A host and a port: the one parser and the one notation of `host:port` and `[v6]:port`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple, Self, TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_PORT = 65535

_HOST_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?")


class HostPort(NamedTuple):
    """A host and a port, immutable; as a tuple it is also what sockets bind and connect to.

    The host is a name or an IP address, an IPv6 address without brackets. `parse` checks the
    syntax alone: whether a name can exist is for `config.hostnames` or the resolver to say.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Self:
        """Parse `host:port` or `[v6]:port`; raises ValueError.

        With `default_port` the port may be missing, as in the authority of a URL.
        """
        match = _HOST_PORT.fullmatch(text)
        if match is None or (match[3] is None and default_port is None):
            raise ValueError(f"{text!r} is not host:port or [v6]:port")
        bracketed, plain, digits = match.groups()
        port = default_port if digits is None else int(digits)
        assert port is not None
        if port > MAX_PORT:
            raise ValueError(f"{text!r}: the port is out of range")
        found = cls(plain if bracketed is None else bracketed, port)
        if bracketed is not None and not isinstance(found.ip, ipaddress.IPv6Address):
            raise ValueError(f"{text!r} is not host:port or [v6]:port")
        return found

    @classmethod
    def of(cls, sockaddr: tuple[Any, ...]) -> Self:
        """The host and port of a socket address of either family."""
        return cls(str(sockaddr[0]), sockaddr[1])

    @property
    def ip(self) -> IPAddress | None:
        """The address; None when the host is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def url_host(self) -> str:
        """The host as URLs have it: IPv6 addresses in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.url_host}:{self.port}"
