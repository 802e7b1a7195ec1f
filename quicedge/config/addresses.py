"""Parsing of addresses in the configuration: listening addresses and origin URLs."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from quicedge.config.host_port import MAX_PORT, HostPort
from quicedge.config.hostnames import host_problem

DNS_PORT = 53

_MAX_UNIX_PATH = 107
"""Maximum length of a unix socket path, in bytes (unix(7))."""


def parse_listen(text: str) -> HostPort:
    """Parse a listening address; the ValueError suggests what to write."""
    try:
        found = HostPort.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}{_hint(text)}") from None
    host, port = found
    if host in ("", "*"):
        raise ValueError(f"{text!r} has no address; write '0.0.0.0:{port}' or '[::]:{port}'")
    if found.ip is None and host_problem(host):
        raise ValueError(f"{text!r} is not host:port or [v6]:port")
    return found


def _hint(text: str) -> str:
    if text.isascii() and text.isdigit():
        return f"; write '0.0.0.0:{text}' or '[::]:{text}'"
    if "://" in text:
        return f"; write {text.partition('://')[2].rstrip('/')!r}"
    host, _, port = text.rpartition(":")
    if ":" in host and "[" not in host and port.isdigit():
        return f"; write '[{host}]:{port}'"
    return "" if host_problem(text) else f"; the port is missing, write {text + ':443'!r}"


def parse_resolver(text: str) -> HostPort:
    """Parse the address of a DNS server, with port 53 by default; raises ValueError."""
    found = HostPort.parse(text, DNS_PORT)
    if found.ip is None:
        raise ValueError(f"{found.host!r} is not an IP address")
    return found


def overlap(one: HostPort, other: HostPort) -> bool:
    """Whether two listening addresses conflict."""
    if one.port != other.port or one.port == 0:
        return False
    if one.ip is None or other.ip is None:
        return one.host.lower() == other.host.lower()
    return one.ip.version == other.ip.version and (
        one.ip == other.ip or one.ip.is_unspecified or other.ip.is_unspecified
    )


def unix_problem(text: str) -> str | None:
    """Describe what is wrong with `unix:/path`; None when it is valid."""
    path = text.removeprefix("unix:")
    if not path.startswith("/"):
        return "unix: requires an absolute path"
    if len(path.encode()) > _MAX_UNIX_PATH:
        return f"unix socket path exceeds {_MAX_UNIX_PATH} bytes"
    return None


def server_problem(url: str) -> str | None:
    """Describe what is wrong with an origin URL; None when it is valid."""
    if url.startswith("unix:"):
        return unix_problem(url)
    match = re.fullmatch(
        r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(?::([0-9]{1,5}))?(/.*)?", url
    )
    if match is None:
        # `localhost:8000` and `8000` are common mistakes.
        short = re.fullmatch(r"(?:([\w.-]+):)?([0-9]{1,5})", url)
        hint = f", perhaps http://{short[1] or '127.0.0.1'}:{short[2]}" if short else ""
        return f"expected http://host:port, https://host or unix:/path{hint}"
    if match[2] and not 0 < int(match[2]) <= MAX_PORT:
        return "the port is out of range"
    if match[3] not in (None, "/"):
        return "an origin URL has no path; paths belong in routes"
    problem = host_problem(match[1].strip("[]"))
    return f"the host {problem}" if problem else None


def name_problem(url: str) -> str | None:
    """Describe why the URL of an origin has no name that can be looked up; None when it has."""
    if url.startswith("unix:"):
        return "a unix socket is not looked up in DNS"
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return f"{host} is an address, not a name to look up"


def service_problem(url: str) -> str | None:
    """Describe why a URL names no service whose SRV records can be looked up."""
    problem = server_problem(url) or name_problem(url)
    if problem is None and urlsplit(url).port is not None:
        return "SRV records say the port; write it without one"
    return problem
