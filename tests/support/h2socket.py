"""A client of HTTP/2 on a real socket, frame by frame, which need not behave."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hpack import Decoder, Encoder

from quicedge.http.h2_frames import PREFACE, frame_header
from quicedge.http.message import Field
from tests.support.edge import RunningEdge
from tests.support.h2client import frame
from tests.support.hostile_h2 import Received

DEADLINE = 20.0


class H2Socket:
    """Writes what the test says; reads until a condition holds."""

    def __init__(self, connection: ssl.SSLSocket, settings: bytes) -> None:
        self._socket = connection
        self.encoder, self.decoder = Encoder(), Decoder()
        self.frames: list[Received] = []
        self.heads: dict[int, dict[bytes, bytes]] = {}
        """Response fields by stream."""
        self.closed = False
        self._buffer = b""
        self._next = 1
        self.send(PREFACE, frame_header(4, 0, 0, len(settings)) + settings)

    def send(self, *frames: bytes) -> None:
        try:
            self._socket.sendall(b"".join(frames))
        except OSError:
            self.closed = True

    def ask(self, path: bytes, *fields: Field, method: bytes = b"GET", end: bool = True) -> int:
        """Send a request head; returns its stream."""
        stream_id, self._next = self._next, self._next + 2
        head: Sequence[Field] = [
            (b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"),
            (b":path", path), *fields,
        ]  # fmt: skip
        self.send(frame(1, 5 if end else 4, stream_id, self.encoder.encode(head)))
        return stream_id

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until the condition holds, or the edge closes."""
        deadline = time.monotonic() + DEADLINE
        while not condition() and not self.closed:
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            self._read()
        assert condition(), f"the edge closed before {what}"

    def until_closed(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self.closed:
            assert time.monotonic() < deadline, "the edge does not close"
            self._read()

    def _read(self) -> None:
        self._socket.settimeout(0.1)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return
        except OSError:
            data = b""
        self.closed = not data
        self._buffer += data
        while len(self._buffer) >= 9:
            stop = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < stop:
                return
            head, payload = self._buffer[:9], self._buffer[9:stop]
            self._buffer = self._buffer[stop:]
            received = Received(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
            self.frames.append(received)
            if received.kind == 1:
                fields = self.decoder.decode(payload, raw=True)
                self.heads[received.stream_id] = {bytes(n): bytes(v) for n, v in fields}

    def status(self, stream_id: int) -> bytes:
        self.until(lambda: stream_id in self.heads, "a response")
        return self.heads[stream_id][b":status"]

    def body(self, stream_id: int) -> bytes:
        """The whole content of a response."""
        self.until(lambda: self.has_ended(stream_id), "the end of a response")
        return b"".join(f.payload for f in self.frames if (f.kind, f.stream_id) == (0, stream_id))

    def has_ended(self, stream_id: int) -> bool:
        return any(f.kind in (0, 1) and f.flags & 1 and f.stream_id == stream_id
                   for f in self.frames)  # fmt: skip

    def reset_code(self, stream_id: int) -> int:
        def codes() -> list[int]:
            return [
                int.from_bytes(f.payload, "big")
                for f in self.frames
                if (f.kind, f.stream_id) == (3, stream_id)
            ]

        self.until(codes, "a reset")
        return codes()[0]

    @property
    def goaways(self) -> list[int]:
        """Error codes of the GOAWAY frames."""
        return [int.from_bytes(f.payload[4:8], "big") for f in self.frames if f.kind == 7]


@contextmanager
def h2_socket(
    running: RunningEdge, settings: bytes = b"", host: str = "127.0.0.1"
) -> Iterator[H2Socket]:
    """A connection to the edge's TCP port; `settings`: the payload of its SETTINGS frame."""
    context = ssl.create_default_context(cafile=str(running.certificate.ca))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, running.port), timeout=DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
        yield H2Socket(connection, settings)
