"""A threaded HTTP/1.1 origin that answers raw bytes by path and records request heads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.peers import serve_in_threads

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class RawOrigin:
    def __init__(self, answers: dict[bytes, bytes], held: tuple[bytes, ...] = ()) -> None:
        """`answers`: what is sent, by path without query; `OK` for other paths. `held`: paths that
        are answered after `release`."""
        self.answers = answers
        self._held = held
        self._released = threading.Event()
        self.heads: list[bytes] = []
        self.received = bytearray()
        """Every byte, of whatever connection."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        serve_in_threads(self._listener, self._serve)

    def head(self, path: bytes) -> bytes:
        """The last request head for a target."""
        return next(head for head in reversed(self.heads) if head.split(b" ")[1] == path)

    def lines(self, path: bytes, name: bytes) -> list[bytes]:
        """The values of a field in that head, a line each."""
        prefix = name + b": "
        return [
            line.removeprefix(prefix)
            for line in self.head(path).split(b"\r\n")
            if line.startswith(prefix)
        ]

    def release(self) -> None:
        """Answer what was held."""
        self._released.set()

    def close(self) -> None:
        self._listener.close()
        self.release()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    data += piece
                    self.received += piece
                head, _, data = data.partition(b"\r\n\r\n")
                self.heads.append(head)
                path = head.split(b" ")[1].partition(b"?")[0]
                if path in self._held:
                    self._released.wait()
                connection.sendall(self.answers.get(path, OK))


@contextlib.contextmanager
def raw_origin(answers: dict[bytes, bytes], held: tuple[bytes, ...] = ()) -> Iterator[RawOrigin]:
    origin = RawOrigin(answers, held)
    try:
        yield origin
    finally:
        origin.close()
