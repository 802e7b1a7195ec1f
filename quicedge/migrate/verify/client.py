"""Clients of the two edges: one request on one connection, over HTTP/1.1 or HTTP/2."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from quicedge.config.devcerts import DevCertificate
from quicedge.migrate.verify.limits import MAX_BODY, RESPONSE_TIMEOUT
from quicedge.migrate.verify.message import Headers, Protocol, Response, Sample, value_of

ECHOED = b"quicedge migrate"
"""What a client sends through a WebSocket and gets back."""


def play(sample: Sample, port: int, identity: DevCertificate | None = None) -> Response:
    """Send a request to a port of this machine; never raises for what the edge does. `identity` is
    shown to who asks for a certificate, unless the sample shows none."""
    client = ("", 0)
    try:
        with _connected(sample, port, identity) as connection:
            client = connection.getsockname()
            exchange = _over_h2 if sample.protocol is Protocol.H2 else _over_h1
            response = exchange(sample, connection)
    except (OSError, http.client.HTTPException, h2.exceptions.ProtocolError) as error:
        response = Response(0, failure=_in_words(error))
    response.client = client
    return response


def _in_words(error: Exception) -> str:
    """One text for all ways in which a connection ends without a response."""
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, ssl.SSLError) and "ALERT" in str(error).upper():
        return "TLS handshake refused"
    return "closed without a response"


@contextlib.contextmanager
def _connected(
    sample: Sample, port: int, identity: DevCertificate | None
) -> Iterator[socket.socket]:
    source = (sample.source, 0) if sample.source else None
    with socket.create_connection(
        ("127.0.0.1", port), RESPONSE_TIMEOUT, source_address=source
    ) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not sample.is_secure:
            yield raw
            return
        context = unverifying_context()
        context.set_alpn_protocols([sample.protocol.value])
        if identity is not None and sample.shows_certificate:
            context.load_cert_chain(identity.cert, identity.key)
        with context.wrap_socket(raw, server_hostname=sample.host) as secure:
            yield secure


def unverifying_context() -> ssl.SSLContext:
    """Of clients that accept the throw-away certificate of any edge."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request_headers(sample: Sample) -> Headers:
    """The fields of the request, with those that its content needs."""
    headers = [(name, value) for name, value in sample.headers if name != "host"]
    if sample.body or sample.method in ("POST", "PUT", "PATCH"):
        headers.append(("content-length", str(len(sample.body))))
    return headers


def _over_h1(sample: Sample, connection: socket.socket) -> Response:
    upgrade = value_of(sample.headers, "upgrade")
    headers = [("host", sample.authority), *_request_headers(sample)]
    if upgrade is None:
        headers.append(("connection", "close"))
    head = f"{sample.method} {sample.target} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    connection.sendall(head.encode("latin-1") + b"\r\n")
    # An edge that refuses a body may close before it has read all of it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sample.body)
    received = http.client.HTTPResponse(connection, method=sample.method)
    try:
        received.begin()
        response = Response(
            received.status, [(name.lower(), value) for name, value in received.getheaders()]
        )
        if response.status == 101:
            response.body = _echo(connection, received)
            return response
        try:
            response.body = received.read(MAX_BODY)
        except (OSError, http.client.HTTPException) as error:
            response.failure = f"cut off: {type(error).__name__}"
        return response
    finally:
        received.close()


def _echo(connection: socket.socket, received: http.client.HTTPResponse) -> bytes:
    """Send a message through a WebSocket, and what comes back."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(ECHOED))
    connection.sendall(bytes((0x81, 0x80 | len(ECHOED))) + mask + masked)
    frame = received.fp.read(2 + len(ECHOED))
    return frame[2:]


def upgrade_headers() -> Headers:
    """The fields that ask for a WebSocket (RFC 6455 section 4.1)."""
    return [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", b64encode(b"quicedge migrate").decode()),
    ]


def _over_h2(sample: Sample, connection: socket.socket) -> Response:
    if isinstance(connection, ssl.SSLSocket) and connection.selected_alpn_protocol() != "h2":
        return Response(0, failure="HTTP/2 is not offered")
    codec = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
    codec.initiate_connection()
    scheme = "https" if sample.is_secure else "http"
    head = [(":method", sample.method), (":scheme", scheme), (":authority", sample.authority),
            (":path", sample.target), *_request_headers(sample)]  # fmt: skip
    codec.send_headers(1, head, end_stream=not sample.body)
    rest = sample.body
    response = Response(0)
    while True:
        while rest and (room := min(codec.local_flow_control_window(1), 16384)):
            codec.send_data(1, rest[:room], end_stream=len(rest) <= room)
            rest = rest[room:]
        connection.sendall(codec.data_to_send())
        data = connection.recv(65536)
        if not data:
            response.failure = "closed without a response" if not response.status else "cut off"
            return response
        for event in codec.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                fields = [(_text(name), _text(value)) for name, value in event.headers]
                response.status = int(fields[0][1])
                response.headers = [field for field in fields if not field[0].startswith(":")]
            elif isinstance(event, h2.events.DataReceived):
                response.body += event.data
                if len(response.body) >= MAX_BODY:
                    response.body = response.body[:MAX_BODY]
                    return response
                codec.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived):
                response.headers += [(_text(name), _text(value)) for name, value in event.headers]
            elif isinstance(event, h2.events.StreamReset):
                if event.error_code != h2.errors.ErrorCodes.NO_ERROR or not response.status:
                    response.failure = "stream reset"
                return response
            elif isinstance(event, h2.events.StreamEnded):
                with contextlib.suppress(OSError):
                    codec.close_connection()
                    connection.sendall(codec.data_to_send())
                return response


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
