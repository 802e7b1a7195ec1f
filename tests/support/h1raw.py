"""A client of HTTP/1.1 over TLS that sends and receives bytes as the test says."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.support.edge import RunningEdge

TIMEOUT = 20.0


class Reply(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class RawClient:
    """A connection. What it reads is split into responses by `reply`."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        self.data = b""

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.tls.sendall(piece)

    def _more(self) -> bool:
        """Receive something; False at the end."""
        try:
            piece = self.tls.recv(65536)
        except (ConnectionError, ssl.SSLEOFError):
            piece = b""
        self.data += piece
        return bool(piece)

    def rest(self) -> bytes:
        """Everything until the edge closes the connection."""
        while self._more():
            pass
        data, self.data = self.data, b""
        return data

    def is_closed(self) -> bool:
        """Whether the edge closes the connection without another byte."""
        return not self.rest()

    def head(self) -> tuple[int, dict[str, str]]:
        """The next head, interim or final."""
        while b"\r\n\r\n" not in self.data:
            if not self._more():
                raise EOFError(self.data)
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        return int(line.split(" ")[1]), dict(text.split(": ", 1) for text in lines)

    def reply(self, method: str = "GET") -> Reply:
        """The next final response; EOFError if the connection ends before it is complete."""
        status, fields = self.head()
        while status < 200:
            status, fields = self.head()
        if method == "HEAD" or status in (204, 304):
            return Reply(status, fields, b"")
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._take_line(), 16):
                body += self.take(size)
                self.take(2)
            while line := self._take_line():
                name, _, value = line.decode().partition(": ")
                fields[name] = value
            return Reply(status, fields, body)
        if "content-length" in fields:
            return Reply(status, fields, self.take(int(fields["content-length"])))
        return Reply(status, fields, self.rest())

    def take(self, size: int) -> bytes:
        while len(self.data) < size:
            if not self._more():
                raise EOFError(self.data)
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def _take_line(self) -> bytes:
        while b"\r\n" not in self.data:
            if not self._more():
                raise EOFError(self.data)
        line, _, self.data = self.data.partition(b"\r\n")
        return line


def context(running: RunningEdge) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(running.certificate.ca))
    made.set_alpn_protocols(["http/1.1"])
    return made


@contextmanager
def raw_client(running: RunningEdge, receive_buffer: int | None = None) -> Iterator[RawClient]:
    """`receive_buffer`: of the socket, for clients that read slowly."""
    plain = socket.socket()
    if receive_buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.settimeout(TIMEOUT)
    plain.connect(("127.0.0.1", running.port))
    with context(running).wrap_socket(plain, server_hostname="localhost") as tls:
        yield RawClient(tls)
        with suppress(OSError):
            tls.close()
