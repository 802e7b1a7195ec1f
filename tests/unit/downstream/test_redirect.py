"""Port 80: where requests are redirected to, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quicedge.config import limits
from quicedge.config.host_port import HostPort
from quicedge.downstream.redirect import Answered, RedirectSession, RedirectSite
from quicedge.http.h1_head import HeadReader
from quicedge.http.validation import MessageLimits


class Loop:
    """Keeps what is to run in the next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.ended = self.aborted = False
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True


class Port80:
    def __init__(self, https_port: int = 443) -> None:
        self.now = 0.0
        self.loop: Any = Loop()
        self.answered: list[Answered] = []
        self.site = RedirectSite(
            HeadReader(MessageLimits(), b"http"), https_port, header_timeout=10.0,
            date=lambda: b"Thu, 01 Jan 1970 00:00:00 GMT", clock=lambda: self.now,
            loop=self.loop, on_answered=lambda answered: self.answered.append(answered),
        )  # fmt: skip
        self.wire: Any = Wire()
        self.lost = 0
        self.session = RedirectSession(self.site, HostPort("192.0.2.7", 1234), self._lost)
        self.session.connection_made(self.wire)

    def _lost(self) -> None:
        self.lost += 1

    def ask(self, request: str, host: str | None = "example.com") -> bytes:
        """The response to a request line, with Host."""
        before = len(self.wire.sent)
        fields = f"host: {host}\r\n" if host is not None else ""
        self.session.data_received(f"{request}\r\n{fields}\r\n".encode())
        return self.wire.sent[before:]


@pytest.mark.parametrize(
    ("target", "host", "port", "location"),
    [
        ("/a?b=c", "example.com", 443, "https://example.com/a?b=c"),
        ("/", "Example.COM:80", 443, "https://example.com/"),
        ("/", "example.com:8080", 4433, "https://example.com:4433/"),
        ("/x", "[2001:db8::1]:80", 8443, "https://[2001:db8::1]:8443/x"),
        ("/x", "192.0.2.1", 443, "https://192.0.2.1/x"),
        ("http://other.example/y", "example.com", 443, "https://other.example/y"),
        ("//evil.example/", "example.com", 443, "https://example.com//evil.example/"),
    ],
)
def test_the_location_names_host_port_and_target(
    target: str, host: str, port: int, location: str
) -> None:
    answer = Port80(port).ask(f"GET {target} HTTP/1.1", host)
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert f"\r\nlocation: {location}\r\n".encode() in answer


@pytest.mark.parametrize(
    ("request_line", "host"),
    [
        ("GET / HTTP/1.0", None),
        ("GET / HTTP/1.1", None),
        ("GET / HTTP/1.1", "a b"),
        ("GET / HTTP/1.1", "a/b"),
        ("GET / HTTP/1.1", "user@example.com"),
        ("GET / HTTP/1.1", "example.com\r\nhost: evil.example"),
        ("GET  / HTTP/1.1", "example.com"),
        ("GET / HTTP/1.1\r\n folded: x", "example.com"),
        ("GET /\0 HTTP/1.1", "example.com"),
        ("nonsense", "example.com"),
    ],
)
def test_malformed_requests_are_refused_and_the_connection_ends(
    request_line: str, host: str | None
) -> None:
    port80 = Port80()
    answer = port80.ask(request_line, host)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"location" not in answer
    assert port80.wire.ended


def test_a_connection_is_used_again_and_closed_when_idle() -> None:
    port80 = Port80()
    for _ in range(1000):
        assert port80.ask("GET / HTTP/1.1").startswith(b"HTTP/1.1 308 ")
        port80.now += 1
        port80.site.check(port80.now)
    assert not port80.wire.ended
    port80.now += limits.REDIRECT_IDLE
    port80.site.check(port80.now)
    assert port80.wire.ended
    port80.now += limits.REDIRECT_IDLE + 1
    port80.site.check(port80.now)
    assert port80.wire.aborted
    port80.session.connection_lost(None)
    assert (port80.lost, port80.site.sessions) == (1, set())


def test_a_head_has_its_time_from_its_first_byte_on() -> None:
    port80 = Port80()
    port80.site.header_timeout = 2.0
    port80.now += limits.REDIRECT_IDLE - 1
    port80.session.data_received(b"GET / HTTP/1.1\r\n")
    port80.now += 1.5
    port80.site.check(port80.now)
    assert port80.ask("x: y").startswith(b"HTTP/1.1 308 ")


@pytest.mark.parametrize("lines", [[b"\r\n"], [b"\r", b"\n"]], ids=["whole", "split"])
def test_empty_lines_do_not_keep_an_idle_connection_open(lines: list[bytes]) -> None:
    port80 = Port80()
    while not port80.wire.ended and port80.now < 4 * limits.REDIRECT_IDLE:
        for line in lines:
            port80.session.data_received(line)
        port80.now += limits.REDIRECT_IDLE - 1
        port80.site.check(port80.now)
    assert port80.wire.ended


def test_an_http_1_0_client_is_told_that_its_connection_persists() -> None:
    port80 = Port80()
    answer = port80.ask("GET / HTTP/1.0\r\nconnection: keep-alive")
    assert answer.lower().endswith(b"\r\ncontent-length: 0\r\n\r\n")
    assert b"\r\nconnection: keep-alive\r\n" in answer
    assert not port80.wire.ended
    assert b"keep-alive" not in port80.ask("GET / HTTP/1.1")
    assert b"\r\nconnection: close\r\n" in port80.ask("GET / HTTP/1.0")
    assert port80.wire.ended


def test_a_slow_head_is_answered_408_and_a_long_one_431() -> None:
    slow = Port80()
    slow.session.data_received(b"GET / HTTP/1.1\r\n")
    slow.now += 10.5
    slow.site.check(slow.now)
    assert slow.wire.sent.startswith(b"HTTP/1.1 408 ")
    long = Port80()
    long.session.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n")
    for _ in range(200):
        long.session.data_received(b"x: " + b"y" * 1000 + b"\r\n")
    assert long.wire.sent.startswith(b"HTTP/1.1 431 ")
    assert long.wire.ended


def test_a_request_with_content_is_redirected_and_ends_the_connection() -> None:
    port80 = Port80()
    port80.session.data_received(
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n"
        b"GET / HTTP/1.1\r\nhost: evil\r\n\r\n"
    )
    assert port80.wire.sent.count(b"HTTP/1.1 308 ") == 1
    assert b"connection: close" in port80.wire.sent


def test_a_challenge_of_a_certificate_authority_is_answered_in_place() -> None:
    port80 = Port80()
    port80.site.challenge = {b"/.well-known/acme-challenge/token": b"token.thumbprint"}.get
    answer = port80.ask("GET /.well-known/acme-challenge/token HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\ntoken.thumbprint")
    unknown = port80.ask("GET /.well-known/acme-challenge/other HTTP/1.1")
    assert unknown.startswith(b"HTTP/1.1 308 ")


def test_a_drain_closes_idle_connections_and_others_after_their_response() -> None:
    idle, busy = Port80(), Port80()
    busy.session.data_received(b"GET / HTTP/1.1\r\n")
    for one in (idle, busy):
        one.site.drain()
    assert idle.wire.ended
    busy.session.data_received(b"host: a\r\n\r\n")
    assert b"connection: close" in busy.wire.sent
    assert busy.wire.ended


_AHEAD = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 1000


def test_requests_sent_ahead_are_answered_a_few_per_turn_while_no_more_is_read() -> None:
    port80 = Port80()
    port80.session.data_received(_AHEAD)
    assert port80.wire.sent.count(b"HTTP/1.1 308 ") == limits.REDIRECTS_PER_TURN
    assert not port80.wire.reading
    for _ in range(1000 // limits.REDIRECTS_PER_TURN):
        assert not port80.wire.reading
        port80.loop.turn()
    assert port80.wire.sent.count(b"HTTP/1.1 308 ") == 1000
    assert port80.wire.reading
    assert not port80.loop.soon


def test_a_client_that_takes_no_responses_is_not_read_from_and_is_cut_off() -> None:
    port80 = Port80()
    port80.session.data_received(_AHEAD)
    port80.session.pause_writing()
    answered = len(port80.wire.sent)
    for _ in range(10):
        port80.loop.turn()
        port80.session.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert len(port80.wire.sent) == answered
    assert not port80.wire.reading
    port80.now += limits.REDIRECT_IDLE + 1
    port80.site.check(port80.now)
    assert port80.wire.aborted


def test_a_slow_reader_gets_all_its_responses() -> None:
    port80 = Port80()
    port80.session.data_received(_AHEAD)
    for _ in range(1000):
        port80.session.pause_writing()
        port80.loop.turn()
        port80.now += limits.REDIRECT_IDLE / 2
        port80.site.check(port80.now)
        port80.session.resume_writing()
        port80.loop.turn()
        if not port80.loop.soon and port80.wire.reading:
            break
    assert port80.wire.sent.count(b"HTTP/1.1 308 ") == 1000
    assert not port80.wire.aborted


def test_redirects_and_refusals_are_reported_for_the_access_log() -> None:
    port = Port80()
    port.ask("GET /a HTTP/1.1")
    port.ask("GET / HTTP/1.1", "a b")
    redirected, refused = port.answered
    assert (redirected.status, redirected.reason, redirected.bytes_sent) == (308, None, 0)
    assert redirected.request is not None
    assert redirected.request.path == b"/a"
    assert (refused.request, refused.status) == (None, 400)
    assert refused.reason
    assert redirected.client == refused.client == ("192.0.2.7", 1234)
