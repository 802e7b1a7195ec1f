"""Routing of requests: by host, then by the longest path prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from quicedge.config.schema import Route
from quicedge.http.target import normal_path


@dataclass(frozen=True, slots=True)
class _PathRoute:
    prefix: bytes
    route: Route

    def matches(self, path: bytes) -> bool:
        prefix = self.prefix
        if not path.startswith(prefix):
            return False
        # "/api" matches "/api" and "/api/x", but not "/apiary".
        end = len(prefix)
        return prefix.endswith(b"/") or len(path) == end or path[end : end + 1] == b"/"


class Router:
    """Finds the route of a request in a table built once per configuration.

    A host matches exactly, else by a wildcard one or more labels up (nearest first), else by `*`.
    Of the routes of the matching hosts, in that order, the one with the longest path prefix wins.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._hosts: dict[str, list[_PathRoute]] = {}
        for route in routes:
            table = self._hosts.setdefault(route.host.lower().rstrip("."), [])
            table.append(_PathRoute(_prefix(route.path), route))
        for table in self._hosts.values():
            table.sort(key=lambda entry: len(entry.prefix), reverse=True)

    def find(self, authority: bytes, path: bytes) -> Route | None:
        """The route for an authority (`host[:port]`) and a path (with its query), or None.

        Paths are compared in normal form (`http.target`).
        `OPTIONS *` concerns the whole server (RFC 9110 section 9.3.7) and is routed like `/`.
        """
        path = b"/" if path == b"*" else normal_path(path)
        for host in _candidates(host_of(authority)):
            for entry in self._hosts.get(host, ()):
                if entry.matches(path):
                    return entry.route
        return None


def _prefix(path: str) -> bytes:
    """A configured path in the normal form of request paths."""
    return normal_path(quote(path, safe="%/:@!$&'()*+,;=").encode())


def host_of(authority: bytes) -> str:
    """The host of `host[:port]` in lower case, without brackets and trailing dot."""
    text = authority.decode("ascii", "replace").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _candidates(host: str) -> Iterable[str]:
    yield host
    labels = host.split(".")
    for index in range(1, len(labels)):
        yield "*." + ".".join(labels[index:])
    yield "*"
