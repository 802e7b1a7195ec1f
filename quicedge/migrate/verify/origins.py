"""Origins that stand in for the real ones: they record what they see and answer with much that an
edge may change.

Each speaks HTTP/1.1, HTTP/2 with prior knowledge, and both over TLS, whichever comes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from io import BufferedReader

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from quicedge.migrate.verify.limits import RESPONSE_TIMEOUT
from quicedge.migrate.verify.message import Headers, Seen, value_of, values_of

ASK = "x-verify-answer"
"""Request field that chooses the answer of an origin."""

TEXT = "This page stands for an application's. " * 100
"""Long enough to be compressed."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HANDSHAKE = 0x16
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def answer(seen: Seen, scheme: str) -> tuple[int, Headers, bytes]:
    """The response to a request: what it asks for in `x-verify-answer`, else a page."""
    headers: Headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("server", "origin/1.0"),
        ("x-powered-by", "Origin"),
        ("set-cookie", "session=abc; Path=/; HttpOnly"),
        ("set-cookie", "theme=dark; Path=/app; Domain=example.com"),
        ("cache-control", "private, max-age=60"),
        ("etag", '"page-1"'),
        ("last-modified", "Mon, 05 Oct 2026 10:00:00 GMT"),
        ("x-frame-options", "DENY"),
    ]
    body = f"<html><body><p>{seen.method}</p>{TEXT}</body></html>".encode()
    host = value_of(seen.headers, "host") or ""
    asked = value_of(seen.headers, ASK)
    if seen.method == "POST" and value_of(seen.headers, "content-type") == "application/grpc":
        message = b"\0\0\0\0\5" + b"reply"
        return 200, [("content-type", "application/grpc"), ("trailer", "grpc-status")], message
    if asked == "redirect":
        return 302, [*headers, ("location", f"{scheme}://{host}/elsewhere?from=here")], b""
    if asked == "redirect-below":
        path = seen.target.partition("?")[0].rstrip("/")
        headers += [
            ("location", f"{scheme}://{host}{path}/below/"),
            ("refresh", f"5; url={scheme}://{host}{path}/below/"),
            ("set-cookie", f"place=1; Path={path}/below/; Secure; SameSite=Lax"),
            # With the port, by which stand-ins are known.
            ("set-cookie", f"host=1; Domain={host}"),
        ]
        return 201, headers, b""
    if asked == "relative-redirect":
        return 301, [*headers, ("location", "/elsewhere")], b""
    if asked is not None and asked.isdigit():
        status = int(asked)
        return status, headers, b"" if status in (204, 304) else f"status {status}".encode()
    if asked == "json":
        return 200, [("content-type", "application/json")], b'{"a": [1, 2, 3]}' * 200
    return 200, headers, body


class Origin:
    """An origin for one address of the configuration."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        """`tls` is for those who come with TLS."""
        self.address = address
        self._tls = tls
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._closed = False
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def take(self) -> list[Seen]:
        """What it has seen since it was last asked."""
        with self._lock:
            seen, self._seen = self._seen, []
        return seen

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        # The thread must have left before the number of the descriptor is another socket's.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _record(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connections.add(connection)
        secure = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = connection.recv(1, socket.MSG_PEEK)
            if first and first[0] == _TLS_HANDSHAKE:
                secure = self._tls.wrap_socket(connection, server_side=True)
            with secure.makefile("rb") as stream:
                scheme = "http" if secure is connection else "https"
                if stream.peek(len(_PREFACE)).startswith(_PREFACE[:3]):
                    self._serve_h2(secure, stream, scheme)
                else:
                    self._serve_h1(secure, stream, scheme)
        except (OSError, ValueError, h2.exceptions.ProtocolError):
            pass  # The edge has left, or speaks neither; what it sent is not recorded.
        finally:
            with self._lock:
                self._connections.discard(connection)
            secure.close()

    def _serve_h1(self, connection: socket.socket, stream: BufferedReader, scheme: str) -> None:
        while line := stream.readline():
            method, target, _version = line.decode("latin-1").split()
            seen = Seen(self.address, method, target, list(_read_fields(stream)))
            if (value_of(seen.headers, "expect") or "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            seen.body = _read_body(seen.headers, stream)
            self._record(seen)
            if (value_of(seen.headers, "upgrade") or "").lower() == "websocket":
                self._echo(seen, connection, stream)
                return
            status, headers, body = answer(seen, scheme)
            is_last = "close" in (value_of(seen.headers, "connection") or "").lower()
            head = f"HTTP/1.1 {status} Said\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in headers)
            if status not in (204, 304):
                head += f"content-length: {len(body)}\r\n"
            if is_last:
                head += "connection: close\r\n"
            content = b"" if method == "HEAD" else body
            connection.sendall(head.encode("latin-1") + b"\r\n" + content)
            if is_last:
                return

    def _echo(self, seen: Seen, connection: socket.socket, stream: BufferedReader) -> None:
        """Open a WebSocket and send the first message back."""
        key = (value_of(seen.headers, "sec-websocket-key") or "").encode()
        accept = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n\r\n"
        )
        connection.settimeout(RESPONSE_TIMEOUT)
        length = stream.read(2)[1] & 0x7F
        mask, data = stream.read(4), stream.read(length)
        message = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        connection.sendall(bytes((0x81, length)) + message)
        stream.read(1)  # Until the client closes it.

    def _serve_h2(self, connection: socket.socket, stream: BufferedReader, scheme: str) -> None:
        codec = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        )
        codec.initiate_connection()
        requests: dict[int, Seen] = {}
        while True:
            connection.sendall(codec.data_to_send())
            data = stream.read1(65536)
            if not data:
                return
            for event in codec.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    requests[event.stream_id] = self._from_h2(event)
                elif isinstance(event, h2.events.DataReceived):
                    requests[event.stream_id].body += event.data
                    codec.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    seen = requests.pop(event.stream_id)
                    self._record(seen)
                    _answer_h2(codec, event.stream_id, seen, scheme)

    def _from_h2(self, event: h2.events.RequestReceived) -> Seen:
        fields = [(str(name), str(value)) for name, value in event.headers]
        pseudo = {name: value for name, value in fields if name.startswith(":")}
        headers = [field for field in fields if not field[0].startswith(":")]
        if ":authority" in pseudo and value_of(headers, "host") is None:
            headers.insert(0, ("host", pseudo[":authority"]))
        return Seen(self.address, pseudo[":method"], pseudo.get(":path", ""), headers)


def _answer_h2(codec: h2.connection.H2Connection, stream: int, seen: Seen, scheme: str) -> None:
    status, headers, body = answer(seen, scheme)
    trailers = values_of(headers, "trailer")
    fields = [(":status", str(status)), *(field for field in headers if field[0] != "trailer")]
    if seen.method == "HEAD" or not (body or trailers):
        codec.send_headers(stream, fields, end_stream=True)
        return
    codec.send_headers(stream, fields)
    codec.send_data(stream, body, end_stream=not trailers)
    if trailers:
        codec.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def _read_fields(stream: BufferedReader) -> Iterator[tuple[str, str]]:
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        yield name.strip().lower(), value.strip()


def _read_body(headers: Headers, stream: BufferedReader) -> bytes:
    if "chunked" in (value_of(headers, "transfer-encoding") or ""):
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        for _ in _read_fields(stream):
            pass  # Trailers are not compared.
        return body
    return stream.read(int(value_of(headers, "content-length") or 0))


class Origins:
    """The stand-ins of one edge, made as its configuration names addresses."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._by_address: dict[str, Origin] = {}

    def port_of(self, address: str) -> int:
        """The port that stands in for an address (`host:port` or `unix:/path`)."""
        if address not in self._by_address:
            self._by_address[address] = Origin(address, self._tls)
        return self._by_address[address].port

    @property
    def names(self) -> dict[int, str]:
        """The address that each port stands for."""
        return {origin.port: address for address, origin in self._by_address.items()}

    def take(self) -> list[Seen]:
        """What all of them have seen since they were last asked."""
        return [seen for origin in list(self._by_address.values()) for seen in origin.take()]

    def close(self) -> None:
        for origin in self._by_address.values():
            origin.close()
