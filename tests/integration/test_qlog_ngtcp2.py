"""A connection seen from both ends by two implementations: ngtcp2's trace and aioquic's."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from aioquic.quic.logger import QuicFileLogger

from quicedge.qlog import report
from quicedge.qlog.align import clock_offset
from quicedge.qlog.analyse import analyse
from quicedge.qlog.validate import validate
from tests.support.certs import write_certificate
from tests.support.peers import free_port, gtlsclient

SIZE = 400_000


class _Server(QuicConnectionProtocol):
    """Answers every request with SIZE bytes."""

    _http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        for item in self._http.handle_event(event) if self._http is not None else ():
            if isinstance(item, HeadersReceived) and self._http is not None:
                self._http.send_headers(item.stream_id, [(b":status", b"200")])
                self._http.send_data(item.stream_id, b"x" * SIZE, end_stream=True)
                self.transmit()


async def _fetch(directory: Path) -> tuple[Path, Path]:
    logs = directory / "server"
    logs.mkdir()
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, quic_logger=QuicFileLogger(str(logs))
    )
    configuration.load_cert_chain(*write_certificate(directory, "localhost"))
    port = free_port(socket.SOCK_DGRAM)
    ended = asyncio.Event()

    class Server(_Server):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

        def quic_event_received(self, event: Any) -> None:
            super().quic_event_received(event)
            if type(event).__name__ == "ConnectionTerminated":
                ended.set()

    server = await serve("127.0.0.1", port, configuration=configuration, create_protocol=Server)
    ngtcp2 = directory / "client.sqlog"
    try:
        done = await asyncio.to_thread(
            gtlsclient, port, "/one", "/two",
            directory=directory / "files", options=(f"--qlog-file={ngtcp2}",),
        )  # fmt: skip
        assert done.code == 0, done.output
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        server.close()
    (aioquic,) = logs.iterdir()
    return ngtcp2, aioquic


async def test_both_ends_agree(tmp_path: Path) -> None:
    ngtcp2, aioquic = await _fetch(tmp_path)
    client_file, server_file = analyse(ngtcp2), analyse(aioquic)
    client, server = client_file.main, server_file.main
    assert client is not None
    assert server is not None
    assert client_file.parse_errors.count == server_file.parse_errors.count == 0
    assert (client_file.shape, client.label) == ("JSON-SEQ", "ngtcp2 client")
    assert server.label == "aioquic server"
    assert client.identifier == server.identifier != ""
    assert client.handshake_complete is not None
    assert client.recovery.rtt.count > 0
    # What one says it sent on a stream, the other says it received.
    for stream in (0, 4):
        assert client.streams.rows[stream].received == server.streams.rows[stream].sent > SIZE
        assert client.streams.rows[stream].sent == server.streams.rows[stream].received
    # On loopback a packet is lost only where a socket's buffer was full.
    assert client.received.count <= server.sent.count
    offset = clock_offset(client, server)
    assert offset is not None
    page = report.page([(client_file, client), (server_file, server)])
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["aligned"] is True
    for path in (ngtcp2, aioquic):
        result = validate(path)
        assert result.translated
        assert not result.parse_errors.count
        # What is left are values that the drafts of those days did not list.
        assert {
            one.what.partition(" ")[0] for one in result.findings.values() if one.level == "error"
        } <= {"data.trigger"}
