"""TCP connections before they have a session: limits, TLS failures, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import ssl
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from quicedge.config import limits
from quicedge.config.limits import MIN_PROGRESS, TCP_READ_SIZE
from quicedge.quic.tls import CertificateStore
from quicedge.shares.connections import AdmissionReason, ConnectionRules, Connections
from quicedge.shares.prefixes import AccessList, Networks
from quicedge.tcp import transport
from quicedge.tcp.arrivals import Arrivals
from quicedge.tcp.connection import TcpConnection
from quicedge.tcp.listener import Listener
from quicedge.tcp.sockets import open_listening_socket
from quicedge.tcp.tls import ServerContexts
from tests.support.certs import make_certificate


class Echo(asyncio.Protocol):
    """The least session there can be."""

    def __init__(self, connection: TcpConnection) -> None:
        self.connection = connection
        self.lost = False

    def start(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.connection.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Front:
    """A listener whose time is moved by hand."""

    def __init__(self, **rules: Any) -> None:
        self.now = 100.0
        self.connections = Connections(ConnectionRules(**rules))
        self.kind: type[Echo] = Echo
        """What sessions are."""
        self.sessions: list[Echo] = []
        self.clients: list[asyncio.StreamWriter] = []
        """A stream that nobody refers to closes its connection."""
        loop = asyncio.get_running_loop()
        self.arrivals = Arrivals(
            self.connections, self._session, plain=lambda data: None, handshake_timeout=10.0,
            loop=loop, clock=lambda: self.now,
        )  # fmt: skip
        contexts = ServerContexts(CertificateStore([make_certificate("localhost")]), ["http/1.1"])
        contexts.activate()
        self.sock = open_listening_socket(socket.AF_INET, "127.0.0.1", 0)
        self.listener = Listener(self.sock, contexts, loop, self.arrivals.accept, lambda: self.now)

    def _session(self, connection: TcpConnection) -> Echo:
        session = self.kind(connection)
        self.sessions.append(session)
        return session

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection without TLS."""
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        self.clients.append(writer)
        return reader, writer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(*self.sock.getsockname(), ssl=context)
        self.clients.append(writer)
        return reader, writer

    async def start_handshake(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that sends the beginning of a ClientHello and no more."""
        before = self.arrivals.accepted
        reader, writer = await self.dial()
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: self.arrivals.accepted > before)
        return reader, writer


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def front(**rules: Any) -> AsyncIterator[Front]:
    one = Front(**rules)
    try:
        yield one
    finally:
        one.listener.close()
        one.arrivals.close()
        for session in one.sessions:
            session.connection.transport.abort()
        await until(lambda: not one.connections)
        one.sock.close()
        for writer in one.clients:
            writer.transport.abort()


async def is_reset(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_a_connection_is_counted_until_it_is_gone() -> None:
    async with front() as one:
        reader, writer = await one.connect()
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert (one.connections.open, one.connections.half_open) == (1, 0)
        connection = one.sessions[0].connection
        assert connection.alpn is None
        assert connection.tls_version == "TLSv1.3"
        assert connection.remote == writer.get_extra_info("sockname")
        assert connection.local == one.sock.getsockname()
        writer.close()
        await until(lambda: not one.connections)
        assert one.sessions[0].lost


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"max_connections": 1}, "connections"),
        ({"max_connections_per_address": 1}, "address_connections"),
        ({"max_connections_per_prefix": 1}, "prefix_connections"),
        ({"handshakes_per_second": 1}, "handshake_rate"),
        ({"handshakes_per_second_per_prefix": 1}, "prefix_handshake_rate"),
    ],
)
async def test_each_limit_on_connections_resets_the_next_one(
    rules: dict[str, Any], reason: str
) -> None:
    async with front(**rules) as one:
        await one.start_handshake()
        reader, writer = await one.dial()
        writer.write(b"\x16")
        assert await is_reset(reader)
        assert one.arrivals.counters[f"refused_{reason}"] == 1


async def test_connections_of_quic_count_against_the_same_limit() -> None:
    async with front(max_connections=1) as one:
        one.connections.note_opened(b"\xc0\0\x02\x01")
        reader, writer = await one.dial()
        writer.write(b"\x16")
        assert await is_reset(reader)
        one.connections.note_handshake_over(b"\xc0\0\x02\x01")
        one.connections.note_closed(b"\xc0\0\x02\x01")
        await one.connect()


@pytest.mark.parametrize("why", [AdmissionReason.DRAINING, AdmissionReason.MEMORY])
async def test_clients_are_reset_at_once_while_memory_is_full_or_the_edge_drains(
    why: AdmissionReason,
) -> None:
    async with front() as one:
        one.connections.closed = why
        reader, writer = await one.dial()
        writer.write(b"\x16")
        assert await is_reset(reader)
        assert one.arrivals.counters[f"refused_{why}"] == 1


async def test_a_slow_handshake_is_cut_off_and_an_open_connection_is_not() -> None:
    async with front() as one:
        await one.connect()
        reader, _ = await one.start_handshake()
        one.now += 9.9
        one.arrivals.check(one.now)
        assert one.arrivals.handshakes == 1
        one.now += 0.2
        one.arrivals.check(one.now)
        assert await is_reset(reader)
        assert one.arrivals.counters["failed_timeout"] == 1
        assert one.connections.open == 1


async def test_silent_handshakes_of_a_network_give_way_to_newer_ones() -> None:
    async with front(max_half_open_per_prefix=3) as one:
        silent = [(await one.start_handshake())[0] for _ in range(3)]
        # They had no time yet: another one is refused.
        reader, writer = await one.dial()
        writer.write(b"\x16")
        assert await is_reset(reader)
        assert one.arrivals.counters["refused_prefix_half_open"] == 1
        one.now += limits.HANDSHAKE_GRACE
        for _ in range(3):
            _, writer = await one.connect()
            writer.close()
        assert await is_reset(silent[0])
        assert one.arrivals.counters["failed_crowded_out"] >= 1


async def test_a_crowd_of_honest_clients_of_one_network_is_let_in() -> None:
    async with front(max_half_open_per_prefix=limits.MAX_HALF_OPEN_PER_PREFIX) as one:
        for _ in range(10):
            pairs = await asyncio.gather(*(one.connect() for _ in range(20)))
            for _, writer in pairs:
                writer.close()
        assert one.arrivals.completed == 200
        assert one.arrivals.failures == 0


async def test_running_out_of_descriptors_suspends_accepting_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quicedge.tcp.listener.TCP_ACCEPT_PAUSE", 0.05)
    async with front() as one:
        real, failures = one.sock, 3

        class Exhausted:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def accept(self) -> Any:
                nonlocal failures
                if failures:
                    failures -= 1
                    raise OSError(errno.EMFILE, "Too many open files")
                return real.accept()

        one.listener.sock = Exhausted()  # type: ignore[assignment]
        reader, writer = await one.connect()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        # One attempt per pause: no busy loop.
        assert one.listener.accept_failures == 3


async def test_tls_failures_are_counted_by_reason() -> None:
    async with front() as one:
        for first, reason in (
            (b"\x16\x03\x01\x00\x05hello", "protocol"),
            (b"hello", "not_tls"),
        ):
            reader, writer = await one.dial()
            writer.write(first)
            await is_reset(reader)
            writer.close()
            await until(lambda reason=reason: one.arrivals.counters[f"failed_{reason}"])
        _, writer = await one.start_handshake()
        writer.close()
        await until(lambda: one.arrivals.counters["failed_gone"])
        await until(lambda: not one.connections)


async def test_a_stopped_listener_serves_who_is_there_and_refuses_others() -> None:
    async with front() as one:
        early = socket.create_connection(one.sock.getsockname())
        early.send(b"\x16")
        one.listener.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(one.sock.getsockname())
        await until(lambda: one.arrivals.accepted == 1)
        early.close()


async def test_the_end_of_the_handshake_and_the_first_answer_are_one_write() -> None:
    async with front() as one:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing)

        class Greeting(Echo):
            def start(self) -> None:
                self.connection.transport.write(b"welcome, ")

        one.kind = Greeting
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        reader, writer = await one.dial()
        writer.write(outgoing.read())
        while True:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
        client.write(b"friend")
        written: list[bytes] = []
        transport = next(iter(one.arrivals._open))
        tcp = transport._tcp

        class Recorded:
            def __getattr__(self, name: str) -> Any:
                return getattr(tcp, name)

            def write(self, data: bytes) -> None:
                written.append(data)
                tcp.write(data)

        transport._tcp = Recorded()  # type: ignore[assignment]
        writer.write(outgoing.read())
        got = b""
        while len(got) < len(b"welcome, friend"):
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    got += client.read(100)
        assert got == b"welcome, friend"
        assert len(written) == 1


async def test_a_response_is_not_cut_off_when_the_edge_closes_an_upload() -> None:
    """Closing a socket with unread data would reset it, and with it the response in flight."""
    async with front() as one:
        reader, writer = await one.connect()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        transport = one.sessions[0].connection.transport
        transport.write(b"no more, please")
        transport.close()
        writer.write(bytes(500_000))  # on its way before the client knows
        assert await reader.read() == b"no more, please"
        writer.close()


async def test_large_uploads_arrive_whole_through_pauses() -> None:
    async with front() as one:
        reader, writer = await one.connect()
        writer.write(b"x")
        await reader.readexactly(1)
        session, got = one.sessions[0], bytearray()
        loop = asyncio.get_running_loop()

        def receive(data: bytes) -> None:
            got.extend(data)
            session.connection.transport.pause_reading()
            loop.call_later(0.001, session.connection.transport.resume_reading)

        session.data_received = receive  # type: ignore[method-assign]
        sent = bytes(range(256)) * 12_000
        writer.write(sent)
        await until(lambda: len(got) == len(sent))
        assert bytes(got) == sent


def test_every_connection_has_its_turn_beside_an_uploader() -> None:
    """libuv goes on reading a socket while its reads fill the buffer: megabytes, all of which would
    be decrypted before anybody else's request is looked at."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        most = runner.run(_most_read_in_one_turn())
    assert TCP_READ_SIZE // 2 < most <= TCP_READ_SIZE


async def _most_read_in_one_turn() -> int:
    """Bytes that an uploader with a full socket gets in, at most, between two turns of the loop."""
    async with front() as one:
        reader, writer = await one.connect()
        writer.write(b"x")
        await reader.readexactly(1)
        session = one.sessions[0]
        transport = session.connection.transport
        session.data_received = lambda data: None  # type: ignore[method-assign]
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        transport.pause_reading()
        writer.write(bytes(3 << 20))
        size = transport.bytes_received

        def waiting() -> bool:
            # Peeking does not tell how much there is.
            queued = fcntl.ioctl(transport.socket.fileno(), termios.FIONREAD, bytes(4))
            return int.from_bytes(queued, sys.byteorder) >= 4 * TCP_READ_SIZE

        await until(waiting)
        transport.resume_reading()
        most, before = 0, size
        while transport.bytes_received < size + 4 * TCP_READ_SIZE:
            most = max(most, transport.bytes_received - before)
            before = transport.bytes_received
            await asyncio.sleep(0)
        return max(most, transport.bytes_received - before)


# --- ALPN -----------------------------------------------------------------------------------------


def refused_for(one: Front, *protocols: str, maximum: ssl.TLSVersion) -> str:
    """Why the edge refuses a client that offers these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = maximum
    context.set_alpn_protocols(list(protocols))
    with (
        socket.create_connection(one.sock.getsockname(), timeout=10) as raw,
        pytest.raises(ssl.SSLError) as refused,
    ):
        context.wrap_socket(raw)
    return str(refused.value)


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_whose_protocols_are_not_offered_gets_the_alert(
    maximum: ssl.TLSVersion,
) -> None:
    async with front() as one:
        for protocols in (("h2",), ("spdy/3.1", "http/0.9")):
            reason = await asyncio.to_thread(refused_for, one, *protocols, maximum=maximum)
            assert "no application protocol" in reason
        assert one.arrivals.counters["failed_no_protocol"] == 2
        assert not one.sessions
        await until(lambda: not one.connections)


async def test_a_client_that_offers_http_1_0_alone_is_served_as_one_that_offers_nothing() -> None:
    """Such as `curl --http1.0`."""

    def selected(one: Front) -> str | None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.0"])
        address = one.sock.getsockname()
        with socket.create_connection(address) as raw, context.wrap_socket(raw) as client:
            return client.selected_alpn_protocol()

    async with front() as one:
        assert await asyncio.to_thread(selected, one) is None
        await until(lambda: one.arrivals.completed == 1)
        assert one.arrivals.counters["failed_no_protocol"] == 0


async def test_a_client_hello_that_comes_octet_by_octet_gets_the_same_alert() -> None:
    async with front() as one:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        reader, writer = await one.dial()
        for octet in outgoing.read():
            writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert await reader.read() == bytes((0x15, 3, 3, 0, 2, 2, 120))
        writer.close()


# --- one half at a time ---------------------------------------------------------------------------


def talk_on_after_the_end(one: Front) -> bytes:
    """A client that hears the edge out, then sends more and closes; what it heard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(one.sock.getsockname(), timeout=10) as raw,
        context.wrap_socket(raw, suppress_ragged_eofs=False) as sock,
    ):
        sock.sendall(b"one ")
        heard = b""
        while data := sock.recv(100):
            heard += data
        sock.sendall(b"two")
        sock.unwrap()
        return heard


async def test_a_session_that_ends_its_half_goes_on_receiving() -> None:
    async with front() as one:
        got, over = bytearray(), asyncio.Event()

        class Ending(Echo):
            def data_received(self, data: bytes) -> None:
                transport = self.connection.transport
                if not got:
                    assert transport.can_write_eof()
                    transport.write(b"that is all")
                    transport.write_eof()
                    transport.write(b"not sent")
                got.extend(data)

            def eof_received(self) -> bool:
                over.set()
                return True

        one.kind = Ending
        assert await asyncio.to_thread(talk_on_after_the_end, one) == b"that is all"
        await until(over.is_set)
        assert bytes(got) == b"one two"
        one.sessions[0].connection.transport.close()
        await until(lambda: not one.connections)


async def end_unread(one: Front, size: int) -> socket.socket:
    """A client that sends a word, ends its half, and reads none of the `size` bytes it is sent."""

    class Talkative(Echo):
        def data_received(self, data: bytes) -> None:
            self.connection.transport.write(bytes(size))

    one.kind = Talkative
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def dial() -> socket.socket:
        raw = socket.create_connection(one.sock.getsockname(), timeout=20)
        sock = context.wrap_socket(raw)
        sock.sendall(b"talk")
        socket.socket.shutdown(sock, socket.SHUT_WR)
        return sock

    sock = await asyncio.to_thread(dial)
    await until(lambda: one.sessions and one.sessions[0].connection.transport.is_closing())
    return sock


async def test_a_client_that_ends_its_half_and_reads_nothing_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "TCP_CLOSE_CHECK", 0.1)
    async with front() as one:
        with await end_unread(one, 16_000_000):
            await until(lambda: one.sessions[0].lost and not one.connections)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is acknowledged")
async def test_a_client_that_takes_its_time_is_waited_for_while_the_connection_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the kernel holds must become less, although it takes nothing more from us."""
    monkeypatch.setattr(transport, "TCP_CLOSE_CHECK", 0.02)
    held, checks = 1_000_000, 0

    def unacknowledged(sock: socket.socket) -> int:
        nonlocal checks
        checks += 1
        return held - min(checks, 20) * MIN_PROGRESS

    monkeypatch.setattr(transport, "unacknowledged", unacknowledged)
    async with front() as one:
        with await end_unread(one, 16_000_000):
            await until(lambda: one.sessions[0].lost)
            assert checks >= 20


async def test_a_client_that_ends_its_half_and_reads_gets_all() -> None:
    async with front() as one:
        with await end_unread(one, 16_000_000) as sock:
            got = await asyncio.to_thread(lambda: sum(iter(lambda: len(sock.recv(1 << 20)), 0)))
            assert got == 16_000_000


# --- the PROXY protocol ---------------------------------------------------------------------------

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.2 1234 8443\r\n"


def tls_after(one: Front, header: bytes) -> TcpConnection:
    """A connection that begins with a header, as a blocking client makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(one.sock.getsockname(), timeout=10) as raw:
        # In two pieces, the second together with nothing of TLS.
        raw.sendall(header[:20])
        raw.sendall(header[20:])
        with context.wrap_socket(raw) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"
            return one.sessions[-1].connection


async def test_the_client_that_a_proxy_names_is_the_one_that_is_counted() -> None:
    async with front() as one:
        one.listener.proxies = Networks(["127.0.0.1/32"])
        connection = await asyncio.to_thread(tls_after, one, HEADER)
        assert connection.remote == ("192.0.2.7", 1234)
        assert connection.local == ("198.51.100.2", 8443)
        assert connection.share.address == socket.inet_aton("192.0.2.7")
        await until(lambda: not one.connections)


async def test_a_proxy_that_speaks_for_itself_is_its_own_client() -> None:
    async with front() as one:
        one.listener.proxies = Networks(["127.0.0.1/32"])
        connection = await asyncio.to_thread(tls_after, one, b"PROXY UNKNOWN" + b"\r\n")
        assert connection.remote.host == "127.0.0.1"


async def test_nobody_but_trusted_proxies_may_say_who_they_are() -> None:
    async with front() as one:
        one.listener.proxies = Networks(["192.0.2.0/24"])
        reader, writer = await one.dial()
        writer.write(HEADER)
        assert await is_reset(reader)
        assert one.arrivals.counters["refused_untrusted_proxy"] == 1


async def test_denied_clients_of_a_proxy_and_bad_headers_end_before_tls() -> None:
    async with front(access=AccessList(deny=["192.0.2.0/24"])) as one:
        one.listener.proxies = Networks(["127.0.0.1/32"])
        for first in (HEADER + b"\x16\x03\x01", b"\x16\x03\x01\x02\0"):
            reader, writer = await one.dial()
            writer.write(first)
            assert await is_reset(reader)
        assert one.arrivals.counters["refused_denied"] == 1
        assert one.arrivals.counters["failed_proxy_header"] == 1
        # A header that does not end is cut off as a slow handshake is.
        reader, writer = await one.dial()
        writer.write(HEADER[:10])
        await until(lambda: one.arrivals.handshakes)
        one.now += 11
        one.arrivals.check(one.now)
        assert await is_reset(reader)
        await until(lambda: not one.connections)


async def test_many_clients_behind_one_proxy_are_not_one_address() -> None:
    async with front(max_connections_per_address=2, max_connections=2000) as one:
        one.listener.proxies = Networks(["127.0.0.1/32"])
        for number in range(20):
            header = HEADER.replace(b"192.0.2.7", b"192.0.2.%d" % number)
            _, writer = await one.dial()
            writer.write(header)
        await until(lambda: one.connections.open == 20)
        assert not any("refused" in name for name in one.arrivals.counters)
