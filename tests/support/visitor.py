"""A stock aioquic HTTP/3 client that keeps its ticket and can ask in its first flight."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection


class Visitor:
    """A stock aioquic client on a blocking socket."""

    def __init__(self, port: int, ticket: Any = None) -> None:
        self.ticket: Any = None
        self.quic = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True, alpn_protocols=["h3"], server_name="localhost",
                verify_mode=ssl.CERT_NONE, session_ticket=ticket,
            ),
            session_ticket_handler=lambda ticket: setattr(self, "ticket", ticket),
        )  # fmt: skip
        self.h3 = H3Connection(self.quic)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.answers: dict[int, tuple[int, bytes]] = {}
        self.address = ("127.0.0.1", port)
        self.quic.connect(self.address, time.monotonic())

    def request(self, method: bytes, path: bytes, body: bytes = b"") -> int:
        stream_id = self.quic.get_next_available_stream_id()
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"),
                (b":path", path)]  # fmt: skip
        self.h3.send_headers(stream_id, head, end_stream=not body)
        if body:
            self.h3.send_data(stream_id, body, end_stream=True)
        return stream_id

    def flight(self) -> list[bytes]:
        """What it would send now, unsent."""
        return [data for data, _ in self.quic.datagrams_to_send(time.monotonic())]

    def send(self, datagrams: list[bytes]) -> None:
        for data in datagrams:
            self.socket.send(data)

    def run(self, until: Any, limit: float = 10.0) -> None:
        end = time.monotonic() + limit
        ended: set[int] = set()
        while not until(self, ended):
            assert time.monotonic() < end, self.answers
            self.send(self.flight())
            timer = self.quic.get_timer() or end
            self.socket.settimeout(max(timer - time.monotonic(), 0.001))
            try:
                self.quic.receive_datagram(self.socket.recv(65536), self.address, time.monotonic())
            except TimeoutError:
                self.quic.handle_timer(time.monotonic())
            while (event := self.quic.next_event()) is not None:
                for item in self.h3.handle_event(event):
                    status, body = self.answers.get(item.stream_id, (0, b""))  # type: ignore[attr-defined]
                    if isinstance(item, HeadersReceived):
                        status = int(dict(item.headers)[b":status"])
                    elif isinstance(item, DataReceived):
                        body += item.data
                    self.answers[item.stream_id] = status, body  # type: ignore[attr-defined]
                    if item.stream_ended:  # type: ignore[attr-defined]
                        ended.add(item.stream_id)  # type: ignore[attr-defined]

    def close(self) -> None:
        self.quic.close()
        self.send(self.flight())
        self.socket.close()
