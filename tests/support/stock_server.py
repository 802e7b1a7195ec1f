"""Stock aioquic as a server that answers `/download` and `/upload` itself.

Usage: stock_server.py PORT CERT KEY
"""

from __future__ import annotations

import asyncio
import hashlib
import sys

import uvloop
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from bench import answers


class Server(QuicConnectionProtocol):
    _http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
            self._uploads: dict[int, tuple[hashlib._Hash, list[int]]] = {}
        if self._http is None:
            return
        for item in self._http.handle_event(event):
            if isinstance(item, HeadersReceived):
                fields = dict(item.headers)
                if fields[b":method"] == b"GET":
                    content = answers.body(answers.download_size(fields[b":path"].decode()))
                    self._answer(item.stream_id, content)
                else:
                    self._uploads[item.stream_id] = hashlib.sha256(), [0]
            elif isinstance(item, DataReceived) and item.stream_id in self._uploads:
                sha, size = self._uploads[item.stream_id]
                sha.update(item.data)
                size[0] += len(item.data)
                if item.stream_ended:
                    self._answer(item.stream_id, answers.receipt(sha.hexdigest(), size[0]))

    def _answer(self, stream_id: int, content: bytes) -> None:
        assert self._http is not None
        length = b"%d" % len(content)
        self._http.send_headers(stream_id, [(b":status", b"200"), (b"content-length", length)])
        self._http.send_data(stream_id, content, end_stream=True)


async def main() -> None:
    port, cert, key = sys.argv[1:]
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN, max_datagram_size=1472
    )
    configuration.load_cert_chain(cert, key)
    await serve("127.0.0.1", int(port), configuration=configuration, create_protocol=Server)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
