"""Access control of the admin API.

Local callers on loopback or a unix socket are trusted; elsewhere, or where a token is configured,
requests need `Authorization: Bearer TOKEN`. Browsers are the other way in: any web page can send
requests to 127.0.0.1, under a name of its own (DNS rebinding) or with a form. It can choose neither
Host nor Origin, and cannot send a form as JSON.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quicedge.config.host_port import HostPort
from quicedge.config.limits import ADMIN_MAX_REQUEST
from quicedge.quic.privatefile import is_private

OPEN_PATHS = frozenset({"/", "/dashboard.css", "/dashboard.js", "/healthz", "/readyz"})
"""Accessible without a token: the page that asks for it, and the probes."""

MIN_TOKEN = 16
"""Minimum length of a token, in characters."""


_JSON = ("application/json",)
_CONTENT_TYPES = {"/api/v1/config": ("application/toml", "application/json")}
"""Of POST requests, by path; forms of other sites can send none of these."""


class TokenError(ValueError):
    """A token file that is unusable or unsafe; the message names it."""


def read_token(path: str) -> str:
    """Read the token from a file that only its owner may read."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(4096).decode("ascii").strip()
    except OSError as error:
        raise TokenError(f"admin.token_file: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenError(f"admin.token_file: {path}: contains no ASCII text") from error
    if not is_private(status):
        mode = status.st_mode & 0o777
        raise TokenError(f"admin.token_file: {path}: mode {mode:03o}, must be 600")
    if len(text) < MIN_TOKEN or not text.isprintable() or " " in text:
        raise TokenError(
            f"admin.token_file: {path}: requires at least {MIN_TOKEN} printable characters"
        )
    return text


class Guard:
    """ASGI middleware that rejects unauthorized requests.

    `hosts`: accepted host names besides loopback ones; None accepts any (unix sockets).
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None, token: str | None) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                status, reason = refusal
                headers = {"www-authenticate": "Bearer"} if status == 401 else None
                body = msgspec.json.encode({"error": reason}) + b"\n"
                response = Response(body, status, headers, media_type="application/json")
                await response(scope, receive, send)
                return
        # A client that leaves before its request is complete is no fault of ours.
        with contextlib.suppress(ClientDisconnect):
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if self._hosts is not None and (len(hosts) != 1 or not self._is_ours(hosts[0], scope)):
            return 403, "Host must be localhost, our address or one of admin.hosts"
        if scope["method"] == "POST":
            allowed = _CONTENT_TYPES.get(scope["path"], _JSON)
            if content_type(headers) not in allowed:
                return 415, f"content-type must be {' or '.join(allowed)}"
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                return 403, "cross-origin request"
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode("utf-8", "replace"), self._token.encode()
            ):
                return 401, "a bearer token is required"
        # What is left has at most 20 digits, or httptools has refused it.
        length = headers.get("content-length", "").lstrip("0")
        if length.isdecimal() and int(length) > ADMIN_MAX_REQUEST:
            return 413, (
                f"content of {length} bytes is larger than {ADMIN_MAX_REQUEST}; a configuration "
                "may be larger in its file, which `quicedge reload` reads"
            )
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        assert self._hosts is not None
        try:
            found = HostPort.parse(host, default_port=0)
        except ValueError:
            return False
        if is_loopback_host(host) or found.host.lower() in self._hosts:
            return True
        # The address that the caller connected to; a name that resolves to it is somebody else's.
        server = scope.get("server")
        return found.ip is not None and server is not None and found.ip == ip_of(server[0])


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def content_type(headers: Headers) -> str:
    """The media type of a request's content, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_loopback_host(host: str) -> bool:
    """Whether a Host field names a loopback address: `localhost`, 127.0.0.0/8 or `[::1]`."""
    try:
        found = HostPort.parse(host, default_port=0)
    except ValueError:
        return False
    return found.host.lower() == "localhost" or (found.ip is not None and found.ip.is_loopback)
