"""A threaded HTTP/1.1 origin that keeps every byte it gets and every request it understands.

It reads messages with a few lines of its own, none of which the edge shares.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader

from tests.support.peers import serve_in_threads

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Seen:
    """A complete request."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    content: bytes
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]


Answer = Callable[[Seen], bytes]


class RecordingOrigin:
    """`answer` makes the response to a request; empty: the connection is closed."""

    def __init__(self, answer: Answer = lambda seen: OK) -> None:
        self._answer = answer
        self.requests: list[Seen] = []
        self.connections: list[bytearray] = []
        """What came, by connection."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        serve_in_threads(self._listener, self._serve)

    def forget(self) -> None:
        """Begin a new record; open connections keep theirs."""
        self.requests.clear()
        for data in self.connections:
            data.clear()

    @property
    def received(self) -> bytes:
        return b"".join(self.connections)

    def close(self) -> None:
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        record = bytearray()
        self.connections.append(record)
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError, EOFError):
            while True:
                seen = self._read(file, record, connection)
                self.requests.append(seen)
                answer = self._answer(seen)
                connection.sendall(answer)
                if not answer or b"connection: close" in answer:
                    return

    def _read(self, file: BufferedReader, record: bytearray, connection: socket.socket) -> Seen:
        line = _line(file, record)
        fields = _fields(file, record)
        seen = Seen(line, fields, b"")
        if seen.values(b"expect") == [b"100-continue"]:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if seen.values(b"transfer-encoding"):
            while size := int(_line(file, record), 16):
                seen.content += _exactly(file, size, record)
                _line(file, record)
            seen.trailers = _fields(file, record)
        elif length := seen.values(b"content-length"):
            seen.content = _exactly(file, int(length[0]), record)
        return seen


def _line(file: BufferedReader, record: bytearray) -> bytes:
    line = file.readline()
    record += line
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line[:-2]


def _fields(file: BufferedReader, record: bytearray) -> list[tuple[bytes, bytes]]:
    fields = []
    while line := _line(file, record):
        name, _, value = line.partition(b": ")
        fields.append((name, value))
    return fields


def _exactly(file: BufferedReader, size: int, record: bytearray) -> bytes:
    data = b""
    while len(data) < size:
        piece = file.read1(size - len(data))
        if not piece:
            raise EOFError
        data += piece
        record += piece
    return data


@contextlib.contextmanager
def recording_origin(answer: Answer = lambda seen: OK) -> Iterator[RecordingOrigin]:
    origin = RecordingOrigin(answer)
    try:
        yield origin
    finally:
        origin.close()
