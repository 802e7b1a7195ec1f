"""What is fuzzed: each target takes any bytes and must neither raise, nor grow, nor stall.

A target is a function of bytes with seeds to begin from; exceptions that are part of an interface
(H3Error, ConfigError and the like) are caught where they are documented, and nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pylsqpack
from aioquic import tls

from interop.endpoint.http09 import Http09Connection
from quicedge.cli.dns.message import DnsError, answers, encode_query, parse_response
from quicedge.config.limits import CONNECTION_WINDOW
from quicedge.config.loader import ConfigError, parse_config
from quicedge.config.positions import key_lines
from quicedge.config.schema import Route, Upstream
from quicedge.http.conditional import Validators, select
from quicedge.http.encodings import choose
from quicedge.http.frames import encode_frame, encode_settings
from quicedge.http.h2_frames import (
    PREFACE,
    frame_header,
    reset_frame,
    settings_frame,
    window_update,
)
from quicedge.http.h3 import H3Connection, H3Error, H3Settings
from quicedge.http.message import Request
from quicedge.http.priority import parse_priority
from quicedge.http.validation import MessageError, MessageLimits, validate_request
from quicedge.proxy.conditions import Asked, Condition, conditions_of
from quicedge.proxy.filters.basic_auth import credentials
from quicedge.proxy.filters.early_hints import useful_links
from quicedge.proxy.trace_context import trace_context
from quicedge.qlog.analyse import analyse
from quicedge.qlog.report import page
from quicedge.qlog.validate import validate
from quicedge.quic.client_hello import read_client_hello
from quicedge.quic.errors import TransportError
from quicedge.quic.events import ConnectionTerminated
from quicedge.quic.frames import describe, encode_varint
from quicedge.quic.tickets import Tickets
from quicedge.quic.token_sealer import FleetKeys
from quicedge.quic.tokens import TokenKeys
from quicedge.telemetry.outcomes import Outcome
from quicedge.udp.fleet import FleetForwarder
from quicedge.udp.fleet_messages import Body as FleetBody
from quicedge.udp.fleet_messages import FleetSealer, Forward, Relay
from quicedge.udp.fleet_messages import Kind as FleetKind
from quicedge.udp.quic_lb import QuicLb, ServerIds
from quicedge.udp.socket import UdpSocket
from quicedge.upstream.connection import Counters
from quicedge.upstream.h1 import H1Connection
from quicedge.upstream.h1_request import encode_head
from quicedge.upstream.h2 import H2Connection
from tests.support import hellos
from tests.support.dnsserver import https_record, response
from tests.support.fleet_listener import FleetListener
from tests.support.h1client import H1Client
from tests.support.h2client import SessionHarness
from tests.support.hostile import Hostile, varints
from tests.support.smuggling import SHAPES
from tests.support.world import CLIENT, NOW, World

MAX_GROWTH = 4 * 1024 * 1024
"""Bytes that one input of a few kilobytes may leave behind, at most."""


class Target(NamedTuple):
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]]) -> Callable[[Callable[[bytes], None]], Any]:
    def register(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[function.__name__] = Target(function, cache(seeds))
        return function

    return register


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """An input as pieces: a byte that chooses, a byte of length, and as many bytes."""
    pieces, at = [], 0
    while at + 2 <= len(data) and len(pieces) < 64:
        size = data[at + 1]
        pieces.append((data[at], data[at + 2 : at + 2 + size]))
        at += 2 + size
    return pieces


def _pack(*pieces: tuple[int, bytes]) -> bytes:
    return b"".join(bytes((kind, len(data[:255]))) + data[:255] for kind, data in pieces)


# --- QUIC -----------------------------------------------------------------------------------------


def _first_flights() -> list[bytes]:
    world = World()
    flight = [data for data, _ in world.client().datagrams_to_send(NOW)]
    hostile = Hostile().connect()
    return [*flight, hostile.packet(varints(1)), b"\x40" + bytes(40), b"\xc0" + bytes(1200)]


@target(_first_flights)
def datagram(data: bytes) -> None:
    """Datagrams from nobody known, and ones that look like a live connection's."""
    world = _living_world()
    before = len(world.endpoint.connections)
    world.endpoint.receive(data, CLIENT, NOW)
    world.endpoint.receive(data.ljust(1200, b"\0"), CLIENT, NOW)
    (connection,) = list(world.endpoint.connections)[:1]
    cid = connection.local_ids.initial
    world.endpoint.receive_run([data[:1] + cid + data, b"\x41" + cid + data], CLIENT, NOW)
    world.endpoint.flush(NOW)
    world.network.take()
    assert not world.endpoint.counters["internal_errors"]
    for newcomer in list(world.endpoint.connections)[before:]:
        newcomer.close_silently(
            ConnectionTerminated(error_code=0, frame_type=None, reason_phrase="over")
        )
    if len(world.endpoint.connections) > 16:
        _living_world.cache_clear()


@cache
def _living_world() -> World:
    world = World(max_half_open=64)
    world.talk(world.client())
    return world


@target(
    lambda: [
        varints(0x0E, 0, 0, 5) + b"hello", varints(0x02, 3, 0, 0, 1), varints(0x06, 0, 2) + b"xx",
        varints(0x04, 0, 1, 2), varints(0x18, 2, 0) + b"\x08" + bytes(24), varints(0x1A) + bytes(8),
        varints(0x12, 100), varints(0x11, 0, 99999), varints(0x1C, 0, 0, 2) + b"by",
        varints(0x05, 0, 1),
    ]
)  # fmt: skip
def frames(data: bytes) -> None:
    """Frames of a client that has the keys, in each epoch."""
    data = data[:1150]
    hostile = Hostile().connect()
    for kind, payload in _pieces(data) or [(0, data)]:
        hostile.send((payload if kind & 1 else data) or b"\0")
    assert not hostile.world.endpoint.counters["internal_errors"]
    assert hostile.server.streams.held < MAX_GROWTH
    first = Hostile().greet()
    first.send(data or b"\0", tls.Epoch.INITIAL)
    assert not first.world.endpoint.counters["internal_errors"]
    describe(data, 3)


@target(
    lambda: [
        varints(0x04, 4, 0x80100000, 0x08, 2, 0x4080), varints(0x0F, 8) + bytes(8),
        varints(0x0D, 41) + bytes(41), varints(0x01, 2, 0x7530, 0x20, 1, 0),
    ]
)  # fmt: skip
def transport_parameters(data: bytes) -> None:
    server = Hostile().greet().server
    with suppress(TransportError):
        server.handshake.on_peer_parameters(data, "test")


@target(lambda: [bytes(8), b"\x01" * 8, *(hello.encode() for hello in hellos.seeds())])
def client_hello(data: bytes) -> None:
    """A ClientHello: what OpenSSL and aioquic make of it, and bytes that are none."""
    hello = hellos.mutated(random.Random(data))
    hellos.compare_with_openssl(hello)
    hellos.compare_with_aioquic(hello)
    with suppress(tls.Alert):
        read_client_hello(data)


@target(lambda: [bytes(64), b"\x01" * 90])
def tokens(data: bytes) -> None:
    for fleet in (None, FleetKeys([b"k" * 32, b"l" * 32], lambda: 1e9)):
        keys, tickets = TokenKeys(b"s" * 32, fleet), Tickets(b"s" * 32, fleet)
        assert keys.open_retry(data, ("192.0.2.1", 5), b"12345678", NOW) is None
        assert not keys.open_new(data, "192.0.2.1", 1, NOW)
        assert tickets.open(data, NOW) is None


# --- HTTP -----------------------------------------------------------------------------------------


class _Wire:
    """A transport and a handler that keep nothing."""

    def __init__(self) -> None:
        self._uni = 3
        self.told = 0

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        self.told += len(data)

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self._uni += 4
        return self._uni - 4

    def consume(self, stream_id: int, nbytes: int) -> None:
        assert nbytes >= 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments, **options: None


def _h3_seeds() -> list[bytes]:
    _, block = pylsqpack.Encoder().encode(
        0,
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")],
    )
    head = encode_frame(1, block)
    settings = b"\0" + encode_frame(4, encode_settings({6: 5000, 1: 4096, 7: 16}))
    return [
        _pack((2, settings), (0, head + encode_frame(0, b"hi") + head)),
        _pack((2, settings + encode_frame(7, b"\0") + encode_frame(0xF0700, b"\0u=1"))),
        _pack((6, b"\x02\x3f\xe1\x1f\xc0\x01a"), (10, b"\x03\x80\x01")),
        _pack((2, settings), (4, encode_varint(0x21) + b"\x05hello"), (4, head)),
    ]


@target(_h3_seeds)
def http3(data: bytes) -> None:
    wire: Any = _Wire()
    h3 = H3Connection(
        wire, wire, is_client=False,
        settings=H3Settings(qpack_max_table_capacity=4096, qpack_blocked_streams=8),
        clock=lambda: 0.0,
    )  # fmt: skip
    http09 = Http09Connection(wire, wire, authority=b"localhost")
    with suppress(H3Error):
        for kind, piece in _pieces(data):
            stream_id = (kind & 0x1F) * 2
            h3.stream_data(stream_id, piece, bool(kind & 0x80))
            http09.stream_data(stream_id & ~3, piece, bool(kind & 0x80))
    assert wire.told < MAX_GROWTH


def _h2_seeds() -> list[bytes]:
    greeting = PREFACE + settings_frame({4: 70_000, 5: 20_000})
    block = b"\x83\x87\x84\x41\x01a"  # a POST
    head = frame_header(1, 4, 1, len(block)) + block
    return [
        greeting + head + frame_header(0, 1, 1, 2) + b"hi" + window_update(0, 5),
        greeting + head + frame_header(1, 5, 1, 6) + b"\x40\x01x\x02yz" + reset_frame(1, 8),
        greeting + frame_header(1, 1, 3, 2) + block[:2] + frame_header(9, 4, 3, 4) + block[2:],
        greeting + frame_header(0x10, 0, 0, 7) + b"\0\0\0\x01u=1" + head + frame_header(6, 0, 0, 8),
    ]


@target(_h2_seeds)
def http2_client(data: bytes) -> None:
    """Bytes of a client, as they come and behind a greeting, on a session whose origin echoes."""
    for greeting in (b"", PREFACE + settings_frame({})):
        client = SessionHarness()
        client.edge.answers_at_once = True
        half = len(data) // 2
        client.deliver(greeting + data[:half])
        client.deliver(data[half:])
        codec = client.session.codec
        assert 0 <= codec.unread_bytes <= CONNECTION_WINDOW
        assert len(client.output()) + codec.sender.unsent < MAX_GROWTH
        client.lose()
        assert not client.session.streams


@target(
    lambda: [
        bytes((cut,)) + shape.data[:2000]
        for cut in (0, 40)
        for shape in SHAPES.values()
    ]
)  # fmt: skip
def http1_client(data: bytes) -> None:
    """Requests over HTTP/1.1, cut at one place: what reaches the origin is one message each."""
    client = H1Client()
    cut, data = data[:1], data[1:]
    for piece in (data[: cut[0]], data[cut[0] :]) if cut else ():
        if piece and not client.is_over:
            client.send(piece)
        answered = 0
        while answered < len(client.origin):
            request = client.origin[answered]
            answered += 1
            text = encode_head(request.request)
            assert text.endswith(b"\r\n\r\n")
            assert text.count(b"\r\n\r\n") == 1, "one head is two"
            if request.ended and not request.aborted and request.handler.outcome is None:
                client.answer(answered - 1, fields=[(b"content-length", b"2")])
    if not client.is_over:
        client.end()
    complete = [request for request in client.origin if request.ended and not request.aborted]
    rejected = len(client.edge.rejections)
    refused = [r for r in client.origin if r.handler.outcome is Outcome.MALFORMED and r.aborted]
    assert rejected + len(refused) <= 1, "something was read after a malformed request"
    statuses = [reply.status for reply in client.replies()]
    # Of a request that is malformed before its origin is asked only the answer is seen.
    unseen = len(statuses) - len(complete) - rejected - len(refused)
    assert unseen == 0 or (unseen == 1 and statuses[-1] == 400 and not rejected)
    assert client.is_over
    client.lose()
    assert all(request.handler.outcome is not None for request in client.origin)


@target(
    lambda: [
        _pack((1, b":method"), (2, b"GET"), (1, b":path"), (2, b"/a?b"), (1, b":scheme"),
              (2, b"https"), (1, b":authority"), (2, b"a.example:443")),
        _pack((1, b"range"), (2, b"bytes=0-5,-3"), (1, b"priority"), (2, b"u=1, i")),
    ]
)  # fmt: skip
def fields(data: bytes) -> None:
    """Field sections, and the fields that we read."""
    values = [piece for _, piece in _pieces(data)]
    pairs = list(zip(values[::2], values[1::2], strict=False))
    with suppress(MessageError):
        validate_request(pairs, limits=MessageLimits(max_size=65536, max_fields=100))
    for value in values:
        parse_priority(value)
        ranged = [(b"range", value), (b"if-none-match", value), (b"if-modified-since", value)]
        current = Validators(etag=b'"tag"', modified=1_700_000_000, size=1000)
        select(b"GET", ranged, current, now=1_700_000_100)
        trace_context([(b"traceparent", value)])


# --- origins --------------------------------------------------------------------------------------


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class _Owner:
    def __init__(self) -> None:
        self.counters = Counters()

    def available(self, connection: object) -> None:
        pass

    retired = closed = repaired_response = limited = available


class _Receiver:
    """Counts what it is told; a response ends once."""

    def __init__(self) -> None:
        self.ends = 0
        self.octets = 0

    def informational(self, response: object) -> None:
        pass

    response = informational

    def data(self, data: bytes) -> None:
        assert not self.ends, "data after the end"
        self.octets += len(data)

    def end_of_response(self, trailers: object) -> None:
        self.ends += 1

    def whole(self, response: object, data: bytes) -> None:
        self.data(data)
        self.ends += 1

    def attempt_failed(self, error: object, retry: object) -> None:
        self.ends += 1

    def pause_request(self) -> None:
        pass

    resume_request = pause_request


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _make_h1(owner: Any, loop: asyncio.AbstractEventLoop) -> H1Connection:
    return H1Connection(owner, Upstream(servers=["http://a"]), loop)


def _make_h2(owner: Any, loop: asyncio.AbstractEventLoop) -> H2Connection:
    return H2Connection(owner, Upstream(servers=["http://a"]), loop)


def _answered(make: Any, data: bytes) -> None:
    async def run() -> None:
        connection = make(_Owner(), asyncio.get_running_loop())
        transport = _Transport()
        connection.connection_made(transport)
        receiver = _Receiver()
        request = Request(b"GET", b"https", b"a", b"/", [], ended=True)
        connection.start(request, receiver)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            if not transport.is_closing():
                connection.data_received(piece)
            await asyncio.sleep(0)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert receiver.ends == 1, "a request ends once, however its origin behaves"

    problems: list[Any] = []
    loop = _loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    loop.run_until_complete(run())
    assert not problems, problems


@target(
    lambda: [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nlink: </a>\r\n\r\nHTTP/1.0 404 No\r\n\r\nbody",
    ]
)
def http1_origin(data: bytes) -> None:
    _answered(_make_h1, data)


def _h2_seeds() -> list[bytes]:
    settings = bytes.fromhex("000000040000000000")
    ok = bytes.fromhex("000001010400000001") + b"\x88"
    data = bytes.fromhex("000002000100000001") + b"ok"
    return [
        settings + ok[:3] + b"\x01\x04" + ok[5:] + data,
        settings + bytes.fromhex("00000403000000000100000008"),
        settings + bytes.fromhex("0000080700000000000000000000000000"),
        settings + bytes.fromhex("00000806000000000000000000000000ff"),
    ]


@target(_h2_seeds)
def http2_origin(data: bytes) -> None:
    _answered(_make_h2, data)


# --- files ----------------------------------------------------------------------------------------


@target(
    lambda: [
        b'listen = ["0.0.0.0:443"]\n[upstreams.app]\nservers = ["http://127.0.0.1:1"]\n'
        b'[[routes]]\nupstream = "app"\n',
        b'[limits]\nrequests = [{rate = "1/second"}]\nallow = ["10.0.0.0/8"]\nmemory = "1GB"\n',
        b'[quic]\nidle_timeout = "5s"\nmax_data = 5000\n[qlog]\nrate = 0.5\n',
    ]
)
def config(data: bytes) -> None:
    try:
        text = data.decode().replace("\r\n", "\n")
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return
    lines = key_lines(text)
    assert not lines or set(lines) >= set(document), text
    with suppress(ConfigError):
        parse_config(document, "quicedge.toml", Path("/"), lines=lines)


@target(
    lambda: [
        b'\x1e{"file_schema":"urn:ietf:params:qlog:file:sequential","trace":{"event_schemas":'
        b'["urn:ietf:params:qlog:events:quic-13"],"vantage_point":{"type":"server"}}}\n'
        b'\x1e{"time":1.5,"name":"quic:packet_sent","data":{"header":{"packet_type":"1RTT",'
        b'"packet_number":5},"raw":{"length":1200},"frames":[{"frame_type":"stream","stream_id":0,'
        b'"offset":0,"raw":{"payload_length":9}}]}}\n',
        b'{"qlog_version":"0.3","traces":[{"vantage_point":{"type":"client"},"events":[{"time":1,'
        b'"name":"recovery:metrics_updated","data":{"cwnd":10,"bytes_in_flight":1e300}}]}]}',
    ]
)
def qlog_reader(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".qlog") as file:
        file.write(data)
        file.flush()
        analysis = analyse(file.name)
        for connection in analysis.connections:
            assert len(page([(analysis, connection)])) < MAX_GROWTH
        validate(file.name)


_DNS_QUERY = encode_query(7, "www.example.com")


@target(
    lambda: [
        response(_DNS_QUERY, https_record("h3", "h2", port=443), https_record(target="a.example")),
        response(_DNS_QUERY, rcode=2),
    ]
)
def dns_response(data: bytes) -> None:
    answers(data, _DNS_QUERY)
    with suppress(DnsError):
        assert len(parse_response(data)) <= len(data)


def _forwarded(body: FleetBody, kind: FleetKind) -> bytes:
    return bytes((kind,)) + msgspec.msgpack.encode(body)


@target(
    lambda: [
        _forwarded(Forward(NOW, 0, b"\0\2", 1, "192.0.2.1", 443, ("192.0.2.7", 9), b"\x41" * 40),
                   FleetKind.FORWARD),
        _forwarded(Relay(NOW, 0, "192.0.2.1", 443, ("192.0.2.7", 9), b"data"), FleetKind.RELAY),
        b"\x43\x0b\0\2" + bytes(40), b"\xc0\0\0\0\1\x0c" + bytes(1200),
    ]
)  # fmt: skip
def fleet_message(data: bytes) -> None:
    """A datagram as it is, and as what a host of the fleet seals."""
    listener = FleetListener()
    fleet = FleetForwarder(
        b"\0\1", ServerIds(12, [QuicLb(0, 2, 8)]), b"s" * 32, instance=b"", wall=lambda: NOW,
        sockets=[cast(UdpSocket, listener)],
    )  # fmt: skip
    fleet.deliver = lambda inner, path, ecn: path.socket.send([inner], path)
    path = listener.path(("192.0.2.9", 4490), b"")
    if data:
        fleet.forward(data, path, 0)
        sealer = FleetSealer(b"s" * 32)
        header = data[:1] + b"\xff" * 12 + sealer._sender + bytes(8)
        fleet.forward(header + sealer._aead.encrypt(bytes(12), data[1:], header), path, 0)
    fleet.close()


@target(
    lambda: [
        b"gzip;q=1.0, br, *;q=0.1", b"Basic YW5uOnNlY3JldA==", b'</a>; rel="preload", </b>; x',
        b"a=1; group=\"b\"", b"https://app.test", b"q=1&x=%20",
    ]
)  # fmt: skip
def filters(data: bytes) -> None:
    """What the filters of routes read of clients and origins: no value is too strange."""
    assert choose(data, (b"zstd", b"gzip")) in (None, b"zstd", b"gzip")
    assert all(link.startswith(b"<") for link in useful_links(data))
    request = Request(
        b"GET", b"https", b"a.test", b"/?" + data, [(b"authorization", data), (b"cookie", data)]
    )
    credentials(request)
    asked = Asked(request, cast(Any, None), b"/")
    for condition in _conditions():
        condition.holds(asked)


@cache
def _conditions() -> tuple[Condition, ...]:
    return conditions_of(
        Route(
            cookies={"group": "~^b+$", "a": "*"}, query={"q": "1", "x": "!"},
            headers={"cookie": "~(a|b)*c"}, extensions=["png"], methods=["GET"],
        )
    )  # fmt: skip
