"""quicedge as the QUIC interop runner's client: the connections that each case asks for."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from interop.endpoint.download import Downloader, DownloadError
from interop.endpoint.environment import Environment
from interop.endpoint.http09 import ALPN_HTTP09
from quicedge.config.schema import Qlog
from quicedge.config.tracelimits import QLOG_MAX_FILE_SIZE, QLOG_MAX_TOTAL_SIZE
from quicedge.quic.connection import Connection
from quicedge.quic.ending import Ending
from quicedge.quic.settings import ALPN_H3, client_configuration
from quicedge.telemetry.trace import Trace
from quicedge.telemetry.tracefiles import TraceFiles, trace_directory

HANDSHAKE_TIMEOUT = 180.0
"""Seconds: some cases lose three packets in ten."""
TICKET_WAIT = 3.0
"""Seconds to wait for a session ticket once the first file is there."""
UPDATE_KEYS_AFTER = 64 * 1024
"""Bytes received before the key update, which must happen within the first megabyte."""
RESERVED_VERSION = 0x1A2A3A4A
"""A version that no server supports (RFC 9000 section 15)."""


class Client:
    """Runs one case: opens the connections that it asks for and downloads the files over them."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._alpn = environment.alpn or (ALPN_H3 if environment.case == "http3" else ALPN_HTTP09)
        directory = trace_directory(Qlog())
        self._files = (
            TraceFiles(directory, max_total=QLOG_MAX_TOTAL_SIZE) if directory is not None else None
        )
        self._tickets: list[Any] = []
        self._ticket_came = asyncio.Event()

    async def run(self) -> None:
        """Download everything; raises DownloadError."""
        try:
            await self._run()
        finally:
            if self._files is not None:
                self._files.close()

    async def _run(self) -> None:
        urls = list(self._environment.requests)
        if not urls:
            raise DownloadError("REQUESTS is empty")
        case = self._environment.case
        if case == "multiconnect":
            for url in urls:
                await self._download([url])
        elif case in ("resumption", "zerortt"):
            await self._download(urls[:1], wait_for_ticket=True)
            await self._download(urls[1:], early=case == "zerortt", resume=True)
        elif case == "versionnegotiation":
            await self._expect_no_common_version(urls)
        else:
            await self._download(urls)

    async def _download(
        self,
        urls: list[str],
        *,
        wait_for_ticket: bool = False,
        early: bool = False,
        resume: bool = False,
    ) -> None:
        async with self._connection(urls[0], resume) as downloader:
            if not early:
                downloader.flush()
                await downloader.connected
            if self._environment.case == "keyupdate":
                downloader.update_keys_after = UPDATE_KEYS_AFTER
            await downloader.fetch(urls)
            if wait_for_ticket:
                try:
                    await asyncio.wait_for(self._ticket_came.wait(), TICKET_WAIT)
                except TimeoutError:
                    raise DownloadError("the server sent no session ticket") from None

    async def _expect_no_common_version(self, urls: list[str]) -> None:
        try:
            await self._download(urls)
        except DownloadError as error:
            if error.ending is not Ending.ABORTED:
                raise
        else:
            raise DownloadError("the server accepted a version that does not exist")

    @asynccontextmanager
    async def _connection(self, url: str, resume: bool) -> AsyncIterator[Downloader]:
        environment = self._environment
        target = urlsplit(url)
        assert target.hostname is not None
        configuration = client_configuration(
            target.hostname,
            ca_file=str(environment.certs / "ca.pem"),
            verify_mode=ssl.CERT_REQUIRED,
            alpn_protocols=(self._alpn,),
            versions=("v2", "v1") if environment.case == "v2" else ("v1",),
            only_chacha20=environment.case == "chacha20",
        )
        if environment.case == "versionnegotiation":
            configuration.original_version = RESERVED_VERSION
            configuration.supported_versions = [RESERVED_VERSION]
        if resume:
            configuration.session_ticket = self._tickets[-1]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                target.hostname, target.port or 443, type=socket.SOCK_DGRAM
            )
        except OSError as error:
            raise DownloadError(f"{target.hostname}: {error}") from error
        connection = Connection(
            configuration=configuration,
            now=time.monotonic(),
            handshake_timeout=HANDSHAKE_TIMEOUT,
            session_ticket_handler=self._take_ticket,
        )
        self._trace(connection)
        downloader = Downloader(connection, found[0][4], self._alpn, environment.downloads)
        try:
            yield downloader
        finally:
            await downloader.close()

    def _trace(self, connection: Connection) -> None:
        """Write a qlog trace of the connection to QLOGDIR, if it is set."""
        if self._files is None:
            return
        wall = time.time()
        file = self._files.new(f"{int(wall * 1000)}-{connection.id}-client")
        assert file is not None, "a client has few connections"
        connection.start_trace(
            Trace(
                file,
                level="extra",
                group_id=connection.id,
                started=time.monotonic(),
                wall_clock=wall,
                vantage_point="client",
                max_size=QLOG_MAX_FILE_SIZE,
            )
        )

    def _take_ticket(self, ticket: Any) -> None:
        self._tickets.append(ticket)
        self._ticket_came.set()
