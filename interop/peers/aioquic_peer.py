"""A peer on stock aioquic, or on qh3 that grew from it: server and client of the interop cases.

`STACK=aioquic|qh3` chooses the library; all else comes by the interop runner's environment. Only
the library's public names are used, so that it stands for what its users get.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
import sys
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

STACK = os.environ.get("STACK", "aioquic")
ROLE, TESTCASE = os.environ["ROLE"], os.environ["TESTCASE"]
PORT = int(os.environ.get("PORT") or 443)
WWW = Path(os.environ.get("WWW") or "/www")
DOWNLOADS = Path(os.environ.get("DOWNLOADS") or "/downloads")
CERTS = Path(os.environ.get("CERTS") or "/certs")

BOTH = {"handshake", "transfer", "chacha20", "retry", "resumption", "zerortt", "http3"}
BOTH |= {"multiconnect", "v2", "versionnegotiation"}
SUPPORTED = {"server": BOTH, "client": BOTH | {"keyupdate"}}
# Cases that it is known to fail, tried all the same: `ALSO="ecn"`.
for _cases in SUPPORTED.values():
    _cases.update(os.environ.get("ALSO", "").split())
UNSUPPORTED = 127

KEY_UPDATE_AFTER = 64 << 10
RESERVED_VERSION = 0x1A2A3A4A
HTTP09, H3 = "hq-interop", "h3"
TICKET_WAIT = 2.0
CREDIT_WAIT = 0.02


def library(name: str) -> Any:
    return importlib.import_module(f"{STACK}.{name}")


def key_log() -> TextIO | None:
    path = os.environ.get("SSLKEYLOGFILE")
    # Line by line, so that a kill loses none; kept open for the life of the process.
    return open(path, "a", buffering=1) if path else None


def base_configuration(is_client: bool, alpns: list[str]) -> Any:
    configuration = library("quic.configuration").QuicConfiguration(
        is_client=is_client, alpn_protocols=alpns
    )
    configuration.secrets_log_file = key_log()
    directory = os.environ.get("QLOGDIR")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        configuration.quic_logger = library("quic.logger").QuicFileLogger(directory)
    if TESTCASE == "chacha20":
        suite = library("tls").CipherSuite.CHACHA20_POLY1305_SHA256
        configuration.cipher_suites = [suite]
    return configuration


def read_file(path: str) -> bytes | None:
    """The file that a request path names, None when there is none inside the root."""
    file = (WWW / path.lstrip("/")).resolve()
    return file.read_bytes() if WWW.resolve() in file.parents and file.is_file() else None


def make_server_protocol() -> type[Any]:
    base = library("asyncio.protocol").QuicConnectionProtocol
    events, h3 = library("quic.events"), library("h3.connection")
    h3_events = library("h3.events")

    class ServerProtocol(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.requests: dict[int, bytes] = {}
            self.http: Any = None
            self.alpn: str | None = None

        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, events.ProtocolNegotiated):
                self.alpn = event.alpn_protocol
                if self.alpn == H3:
                    self.http = h3.H3Connection(self._quic)
            if self.http is not None:
                for http_event in self.http.handle_event(event):
                    if isinstance(http_event, h3_events.HeadersReceived):
                        self.answer_h3(http_event.stream_id, dict(http_event.headers))
            elif isinstance(event, events.StreamDataReceived):
                self.answer_http09(event)

        def answer_h3(self, stream_id: int, headers: dict[bytes, bytes]) -> None:
            body = read_file(headers.get(b":path", b"/").decode())
            status = b"404" if body is None else b"200"
            fields = [(b":status", status), (b"content-length", str(len(body or b"")).encode())]
            self.http.send_headers(stream_id, fields)
            self.http.send_data(stream_id, body or b"", end_stream=True)

        def answer_http09(self, event: Any) -> None:
            request = self.requests.pop(event.stream_id, b"") + event.data
            if not event.end_stream and not request.endswith(b"\r\n"):
                self.requests[event.stream_id] = request
                return
            if not request:
                return  # the FIN of a request already answered
            words = request.decode(errors="replace").split()
            body = read_file(words[1]) if len(words) == 2 and words[0] == "GET" else None
            self._quic.send_stream_data(event.stream_id, body or b"", end_stream=True)

    return ServerProtocol


async def run_server() -> int:
    configuration = base_configuration(False, [HTTP09, H3])
    if TESTCASE == "v2":
        versions = library("quic.packet").QuicProtocolVersion
        configuration.supported_versions = [versions.VERSION_2, versions.VERSION_1]
    configuration.load_cert_chain(CERTS / "cert.pem", CERTS / "priv.key")
    tickets: dict[bytes, Any] = {}
    await library("asyncio").serve(
        "::",
        PORT,
        configuration=configuration,
        create_protocol=make_server_protocol(),
        session_ticket_fetcher=lambda label: tickets.pop(label, None),
        session_ticket_handler=lambda ticket: tickets.__setitem__(ticket.ticket, ticket),
        retry=TESTCASE == "retry",
    )
    await asyncio.Event().wait()
    return 0


def make_client_protocol() -> type[Any]:
    base = library("asyncio.protocol").QuicConnectionProtocol
    events, h3 = library("quic.events"), library("h3.connection")
    h3_events = library("h3.events")

    class ClientProtocol(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.http = h3.H3Connection(self._quic) if chosen_alpn() == H3 else None
            self.bodies: dict[int, bytearray] = {}
            self.waiters: dict[int, asyncio.Future[bytes]] = {}
            self.received = 0
            self.key_updated = TESTCASE != "keyupdate"

        async def fetch(self, authority: str, path: str) -> bytes:
            # Beyond the server's limit qh3 refuses a stream, where aioquic lets it wait; nothing
            # tells when the limit is raised.
            while self._quic.get_next_available_stream_id() // 4 >= self.stream_limit():
                await asyncio.sleep(CREDIT_WAIT)
            stream_id = self._quic.get_next_available_stream_id()
            self.bodies[stream_id] = bytearray()
            self.waiters[stream_id] = asyncio.get_running_loop().create_future()
            if self.http is not None:
                fields = ((":method", "GET"), (":scheme", "https"))
                fields += ((":authority", authority), (":path", path))
                encoded = [(name.encode(), value.encode()) for name, value in fields]
                self.http.send_headers(stream_id, encoded, end_stream=True)
            else:
                request = f"GET {path}\r\n".encode()
                self._quic.send_stream_data(stream_id, request, end_stream=True)
            self._transmit_soon()
            return await self.waiters[stream_id]

        def stream_limit(self) -> float:
            limit = getattr(self._quic, "max_concurrent_bidi_streams", None)
            # In 0-RTT it is what the last connection said, and qh3 does not tell it.
            return limit or float("inf")

        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, events.ConnectionTerminated):
                for waiter in self.waiters.values():
                    if not waiter.done():
                        waiter.set_exception(ConnectionError(event.reason_phrase))
            if self.http is not None:
                for item in self.http.handle_event(event):
                    if isinstance(item, h3_events.HeadersReceived | h3_events.DataReceived):
                        self.store(item.stream_id, getattr(item, "data", b""), item.stream_ended)
            elif isinstance(event, events.StreamDataReceived):
                self.store(event.stream_id, event.data, event.end_stream)

        def store(self, stream_id: int, data: bytes, ended: bool) -> None:
            self.bodies[stream_id] += data
            self.received += len(data)
            if not self.key_updated and self.received > KEY_UPDATE_AFTER:
                self.key_updated = True
                self.request_key_update()
            if ended and not self.waiters[stream_id].done():
                self.waiters[stream_id].set_result(bytes(self.bodies.pop(stream_id)))

    return ClientProtocol


def chosen_alpn() -> str:
    """HTTP/0.9 except in http3, unless the harness says that the server has HTTP/3 alone."""
    return os.environ.get("ALPN") or (H3 if TESTCASE == "http3" else HTTP09)


async def run_client() -> int:
    configuration = base_configuration(True, [chosen_alpn()])
    configuration.verify_mode = ssl.CERT_NONE
    versions = library("quic.packet").QuicProtocolVersion
    if TESTCASE == "v2":
        configuration.original_version = versions.VERSION_1
        configuration.supported_versions = [versions.VERSION_2, versions.VERSION_1]
    elif TESTCASE == "versionnegotiation":
        configuration.supported_versions = [RESERVED_VERSION]
    else:
        configuration.supported_versions = [versions.VERSION_1]
    urls = os.environ["REQUESTS"].split()
    tickets: list[Any] = []
    connect, protocol = library("asyncio").connect, make_client_protocol()

    async def fetch_all(batch: list[str], early: bool = False) -> None:
        target = urlsplit(batch[0])
        async with connect(
            target.hostname,
            target.port or 443,
            configuration=configuration,
            create_protocol=protocol,
            session_ticket_handler=tickets.append,
            wait_connected=not early,
        ) as client:
            parts = [urlsplit(url) for url in batch]
            bodies = await asyncio.gather(*(client.fetch(part.netloc, part.path) for part in parts))
            for part, body in zip(parts, bodies, strict=True):
                (DOWNLOADS / Path(part.path).name).write_bytes(body)
            if TESTCASE in ("resumption", "zerortt") and not tickets:
                await asyncio.wait_for(wait_for_ticket(tickets), TICKET_WAIT)

    if TESTCASE == "multiconnect":
        for url in urls:
            await fetch_all([url])
    elif TESTCASE in ("resumption", "zerortt"):
        await fetch_all(urls[:1])
        configuration.session_ticket = tickets[-1]
        await fetch_all(urls[1:], early=TESTCASE == "zerortt")
    elif TESTCASE == "versionnegotiation":
        try:
            await fetch_all(urls)
        except ConnectionError:
            return 0
        return 1
    else:
        await fetch_all(urls)
    return 0


async def wait_for_ticket(tickets: list[Any]) -> None:
    while not tickets:
        await asyncio.sleep(0.01)


def main() -> None:
    if TESTCASE not in SUPPORTED.get(ROLE, set()):
        sys.exit(UNSUPPORTED)
    sys.exit(asyncio.run(run_server() if ROLE == "server" else run_client()))


if __name__ == "__main__":
    main()
