"""Validation of host names in the configuration."""

from __future__ import annotations

import ipaddress
import re

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAX_LENGTH = 253
"""Characters of a name in text (RFC 1035 section 2.3.4, without the root)."""


def host_problem(text: str) -> str | None:
    """Describe why `text` is not a host name or IP address, with what to write; None if it is."""
    meant = _meant(text)
    if not text:
        return "is empty"
    if meant != text:
        what = "is a URL" if "://" in text else "is more than a host name"
        return f"{what}; write {meant!r}" if meant else f"{what} without a host"
    if not text.isascii():
        try:
            return f"is not ASCII; write {text.encode('idna').decode()!r}"
        except UnicodeError:
            return "is not a host name"
    if ":" in text:
        return None if _is_address(text) else "is neither a host name nor an IPv6 address"
    name = text.removesuffix(".")
    if len(name) > _MAX_LENGTH or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        return "is not a host name"
    return None


def _meant(text: str) -> str:
    """The host in `scheme://user@host:port/path`; every other part is optional."""
    host = re.split(r"[/?#]", text.partition("://")[2] or text, maxsplit=1)[0].rpartition("@")[2]
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d*)?", host)
    if bracketed is not None:
        return bracketed[1]
    return host.partition(":")[0] if re.fullmatch(r"[^:]*:\d*", host) else host


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
