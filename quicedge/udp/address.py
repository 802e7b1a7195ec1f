"""Socket addresses as text."""

from __future__ import annotations

from typing import Any


def format_address(address: tuple[Any, ...]) -> str:
    """`host:port` or `[v6]:port` of a sockaddr."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
