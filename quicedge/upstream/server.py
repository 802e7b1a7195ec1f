"""One origin server: its address, its connections, and who waits for one."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quicedge.config import limits
from quicedge.config.schema import Upstream as UpstreamConfig
from quicedge.upstream.base import UpstreamError
from quicedge.upstream.connection import OriginConnection
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.h2 import H2Connection

if TYPE_CHECKING:
    from quicedge.upstream.stream import UpstreamStream


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

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
            raise ValueError("unix: needs an absolute path")
        return Address(url, unix=path)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected http://host:port, https://host or unix:/path")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("an origin has no path; routes choose by path")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.hostname, port, tls)


def tls_context(config: UpstreamConfig) -> ssl.SSLContext:
    """TLS towards origins: verified unless the operator said otherwise."""
    context = ssl.create_default_context(cafile=config.tls_ca)
    if not config.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    protocols = {"auto": ["h2", "http/1.1"], "h2": ["h2"], "http/1.1": ["http/1.1"]}
    context.set_alpn_protocols(protocols[config.protocol])
    return context


class _Negotiating(asyncio.Protocol):
    """Stands in until TLS has said which version is spoken."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.connection: H1Connection | H2Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        negotiated = tls.selected_alpn_protocol() if tls is not None else None
        protocol = self._server.config.protocol
        http2 = negotiated == "h2" if tls is not None else protocol == "h2"
        self.connection = self._server.new_connection(http2)
        transport.set_protocol(self.connection)
        self.connection.connection_made(transport)


class Server:
    """Hands connections to requests: a usable HTTP/2 one, else an idle HTTP/1.1 one (the last
    used first), else a new one, else the request waits its turn."""

    def __init__(
        self, address: Address, config: UpstreamConfig, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.address = address
        self.config = config
        self.failures = 0
        self.requests = 0
        self._loop = loop
        self._tls = tls_context(config) if address.tls else None
        self._idle: list[H1Connection] = []
        self._h1: set[H1Connection] = set()
        self._h2: list[H2Connection] = []
        self._waiting: deque[UpstreamStream] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._speaks_h2 = config.protocol == "h2"

    def submit(self, stream: UpstreamStream) -> None:
        """Start a request as soon as there is a connection for it."""
        self.requests += 1
        connection = self._usable()
        if connection is not None:
            stream.attach(connection, 0.0)
            return
        if len(self._waiting) >= limits.UPSTREAM_MAX_WAITING:
            self._loop.call_soon(
                stream.attempt_failed, UpstreamError("overloaded", "too many requests wait"), True
            )
            return
        self._waiting.append(stream)
        self._connect_for_waiting()

    def withdraw(self, stream: UpstreamStream) -> None:
        """The request was given up while it waited."""
        try:
            self._waiting.remove(stream)
        except ValueError:
            pass

    def _usable(self) -> H1Connection | H2Connection | None:
        for shared in self._h2:
            if shared.is_usable:
                return shared
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    def _connect_for_waiting(self) -> None:
        if self._speaks_h2:
            # One connection takes many streams: another only when none is on its way.
            wanted = 0 if self._connecting else 1
            room = limits.UPSTREAM_H2_CONNECTIONS - len(self._h2)
        else:
            wanted = len(self._waiting) - len(self._connecting)
            room = self.config.max_connections - len(self._h1) - len(self._connecting)
        for _ in range(min(wanted, room)):
            task = self._loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        started = self._loop.time()
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                connection = await self._open()
        except TimeoutError:
            self._connect_failed(UpstreamError("connect_timeout", self.address.text))
        except ssl.SSLError as error:
            self._connect_failed(UpstreamError("tls", error.reason or str(error)))
        except OSError as error:
            self._connect_failed(UpstreamError("connect", f"{self.address.text}: {error}"))
        else:
            elapsed = self._loop.time() - started
            while self._waiting and connection.is_usable:
                self._waiting.popleft().attach(connection, elapsed)
                if isinstance(connection, H1Connection):
                    return
            if isinstance(connection, H1Connection) and connection.is_usable:
                self._on_idle(connection)

    async def _open(self) -> H1Connection | H2Connection:
        factory = functools.partial(_Negotiating, self)
        if self.address.unix is not None:
            _, protocol = await self._loop.create_unix_connection(factory, self.address.unix)
        elif self._tls is not None:
            _, protocol = await self._loop.create_connection(
                factory,
                self.address.host,
                self.address.port,
                ssl=self._tls,
                server_hostname=self.config.tls_server_name or self.address.host,
            )
        else:
            _, protocol = await self._loop.create_connection(
                factory, self.address.host, self.address.port
            )
        return protocol.connection

    def new_connection(self, http2: bool) -> H1Connection | H2Connection:
        """A protocol object for a connection that was just made."""
        if http2:
            self._speaks_h2 = True
            shared = H2Connection(self.config, self._loop, self._serve_waiting, self._h2_closed)
            self._h2.append(shared)
            return shared
        self._speaks_h2 = False
        connection = H1Connection(self.config, self._loop, self._on_idle, self._h1_closed)
        self._h1.add(connection)
        return connection

    def _connect_failed(self, error: UpstreamError) -> None:
        """One request pays for one failed try; over HTTP/2 all that wait depend on it."""
        self.failures += 1
        count = len(self._waiting) if self._speaks_h2 else min(1, len(self._waiting))
        failed = [self._waiting.popleft() for _ in range(count)]
        for stream in failed:
            stream.attempt_failed(error, True)

    def _on_idle(self, connection: H1Connection) -> None:
        if self._waiting:
            self._waiting.popleft().attach(connection, 0.0)
        else:
            self._idle.append(connection)

    def _serve_waiting(self) -> None:
        while self._waiting:
            connection = self._usable()
            if connection is None:
                return
            self._waiting.popleft().attach(connection, 0.0)

    def _h1_closed(self, connection: H1Connection) -> None:
        self._h1.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect_for_waiting()

    def _h2_closed(self, connection: H2Connection) -> None:
        if connection in self._h2:
            self._h2.remove(connection)
        if self._waiting:
            self._connect_for_waiting()

    def stats(self) -> dict[str, int]:
        return {
            "open": len(self._h1) + len(self._h2),
            "idle": len(self._idle),
            "waiting": len(self._waiting),
            "requests": self.requests,
            "failures": self.failures,
        }

    def close_idle(self) -> None:
        """Close what no request uses."""
        for connection in list(self._idle):
            connection.close()

    async def close(self) -> None:
        """Close all; what runs fails."""
        for task in list(self._connecting):
            task.cancel()
        running: list[OriginConnection] = [*self._h1, *self._h2]
        for connection in running:
            connection.close()
        await asyncio.gather(*self._connecting, return_exceptions=True)
