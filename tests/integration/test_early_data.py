"""0-RTT requests through a running edge: what the origin sees of them, and when."""

from __future__ import annotations

import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from tests.support.edge import edge
from tests.support.origin import demo_origin


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

    def run(self, until: Any, limit: float = 10.0) -> None:
        end = time.monotonic() + limit
        ended: set[int] = set()
        while not until(self, ended):
            assert time.monotonic() < end, self.answers
            for data, _ in self.quic.datagrams_to_send(time.monotonic()):
                self.socket.send(data)
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
        for data, _ in self.quic.datagrams_to_send(time.monotonic()):
            self.socket.send(data)
        self.socket.close()


def visit(port: int, ticket: Any) -> tuple[Visitor, dict[str, tuple[int, bytes]]]:
    """Send requests in the first flight; the answers by what was asked."""
    visitor = Visitor(port, ticket)
    asked = {
        "GET": visitor.request(b"GET", b"/echo"),
        "POST": visitor.request(b"POST", b"/echo", b"x" * 3000),
        "425": visitor.request(b"GET", b"/status/425"),
    }
    visitor.run(lambda v, ended: ended >= set(asked.values()))
    return visitor, {name: visitor.answers[stream_id] for name, stream_id in asked.items()}


@pytest.mark.parametrize("enabled", [True, False])
def test_requests_in_the_first_flight(tmp_path: Path, enabled: bool) -> None:
    extra = "[quic]\nearly_data = true" if enabled else ""
    with demo_origin() as origin, edge(tmp_path, origin, extra=extra) as running:
        first = Visitor(running.port)
        first.run(lambda v, ended: v.ticket is not None)
        first.close()
        visitor, answers = visit(running.port, first.ticket)
        assert visitor.quic.tls.session_resumed
        assert visitor.quic.tls.early_data_accepted == enabled
        visitor.close()
        got, posted = (dict(json.loads(answers[name][1])["fields"]) for name in ("GET", "POST"))
        assert got.get("early-data") == ("1" if enabled else None)
        assert got["x-forwarded-for"] == ("unknown" if enabled else "127.0.0.1")
        # What is not safe waited until the handshake had shown who is there.
        assert "early-data" not in posted
        assert posted["x-forwarded-for"] == "127.0.0.1"
        assert json.loads(answers["POST"][1])["body"]["bytes"] == 3000
        assert answers["425"][0] == 425

        again, answers = visit(running.port, first.ticket)
        assert again.quic.tls.session_resumed
        assert not again.quic.tls.early_data_accepted
        again.close()
        assert "early-data" not in dict(json.loads(answers["GET"][1])["fields"])
        assert answers["POST"][0] == 200
