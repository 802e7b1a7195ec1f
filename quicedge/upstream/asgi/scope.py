"""The scope of a request (ASGI, "HTTP & WebSocket ASGI Message Format")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from quicedge.http.message import Request
from quicedge.upstream.asgi.application import Scope
from quicedge.upstream.proxy_header import Peer

ASGI = {"version": "3.0", "spec_version": "2.4"}
"""Since 2.4, `send` raises an OSError once the client has gone."""

TRANSPORT = "quicedge.transport"
"""The extension with the facts of the client's connection."""


class TransportSnapshot(Protocol):
    """A named tuple of facts."""

    def _asdict(self) -> dict[str, Any]: ...


class AppPeer(Peer, Protocol):
    """The client of a request, as applications are told."""

    @property
    def http_version(self) -> bytes:
        """`3`, `2`, `1.1` or `1.0`."""

    @property
    def transport(self) -> TransportSnapshot:
        """The current state of its connection's transport."""


class TransportFacts(Mapping[str, Any]):
    """Facts of the client's transport (`proxy.client.Transport`), read when they are asked for.

    They are current values, also late in a long response, and cost nothing unless asked for.
    """

    __slots__ = ("_peer",)

    def __init__(self, peer: AppPeer) -> None:
        self._peer = peer

    def __getitem__(self, name: str) -> Any:
        return self._peer.transport._asdict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._peer.transport._asdict())

    def __len__(self) -> int:
        return len(self._peer.transport._asdict())


_HTTP_EXTENSIONS: Mapping[str, Mapping[str, Any]] = {
    "http.response.trailers": {},
    "http.response.early_hint": {},
}
_WEBSOCKET_EXTENSIONS: Mapping[str, Mapping[str, Any]] = {"websocket.http.response": {}}


def http_scope(
    request: Request, peer: AppPeer | None, root_path: str, state: Mapping[str, Any]
) -> Scope:
    """The scope of an HTTP request."""
    scope = _scope("http", request, peer, root_path, state, _HTTP_EXTENSIONS)
    scope["method"] = request.method.decode("ascii")
    if request.content_length is not None:
        scope["headers"].append((b"content-length", b"%d" % request.content_length))
    return scope


def websocket_scope(
    request: Request, peer: AppPeer | None, root_path: str, state: Mapping[str, Any]
) -> Scope:
    """The scope of a WebSocket."""
    scope = _scope("websocket", request, peer, root_path, state, _WEBSOCKET_EXTENSIONS)
    scope["scheme"] = "wss" if request.scheme == b"https" else "ws"
    scope["subprotocols"] = [
        offered
        for name, value in request.fields
        if name == b"sec-websocket-protocol"
        for item in value.decode("latin-1").split(",")
        if (offered := item.strip())
    ]
    return scope


def _scope(
    kind: str,
    request: Request,
    peer: AppPeer | None,
    root_path: str,
    state: Mapping[str, Any],
    extensions: Mapping[str, Mapping[str, Any]],
) -> Scope:
    raw_path, _, query = request.path.partition(b"?")
    # What is not UTF-8 is in `raw_path` alone.
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    if root_path and path != root_path and not path.startswith(root_path + "/"):
        # The path of a scope includes its root; a filter of the route has removed it.
        path = root_path + path
        raw_path = root_path.encode() + raw_path
    client = server = None
    version = "1.1"
    offered: dict[str, Mapping[str, Any]] = dict(extensions)
    if peer is not None:
        client, server = peer.address, peer.local_address
        version = peer.http_version.decode("ascii")
        offered[TRANSPORT] = TransportFacts(peer)
    return {
        "type": kind,
        "asgi": ASGI,
        "http_version": version,
        "scheme": request.scheme.decode("ascii"),
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": [(b"host", request.authority), *request.fields],
        "client": client,
        "server": server,
        "state": dict(state),
        "extensions": offered,
    }
