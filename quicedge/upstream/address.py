"""Where an origin server listens."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """A server of an upstream. `text` names it in logs and stats: `host:port` or `unix:/path`."""

    text: str
    host: str = ""
    port: int = 0
    tls: bool = False
    unix: str | None = None


def parse_server(url: str) -> Address:
    """The address in `http://host:port`, `https://host` or `unix:/path`; raises ValueError."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{url!r}: unix: needs an absolute path")
        return Address(url, unix=path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url!r}: expected http://host:port, https://host or unix:/path")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: an origin has no path; routes choose by path")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    tls = parts.scheme == "https"
    if port is None:
        port = 443 if tls else 80
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.hostname, port, tls)
