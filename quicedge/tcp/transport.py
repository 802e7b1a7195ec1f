"""TLS between a TCP transport of the event loop and the session of a connection.

uvloop has TLS of its own. This one differs where a server in front of strangers needs it to: the
read buffer is shared by all connections instead of 256 KB for each; the first bytes are seen before
TLS is (PROXY protocol, plain HTTP); a client may close its half and still get its response; a
connection is closed without cutting off what is in flight; and there is no task, no timer and no
future per connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from enum import Enum, auto
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Protocol, cast

from quicedge.client_auth.verdict import RefusedError
from quicedge.config.acmelimits import ON_DEMAND_HELLO_MAX
from quicedge.config.limits import (
    MIN_PROGRESS,
    TCP_CLOSE_CHECK,
    TCP_READ_SIZE,
    TCP_WRITE_HIGH,
    TCP_WRITE_LOW,
    TLS_ANSWERS_BURST,
    TLS_ANSWERS_RATE,
    TLS_HELLO_SIZE,
    TLS_MAX_DISCARDED,
)
from quicedge.shares import Standing, WorkBudget
from quicedge.tcp.client_hello import first_message, offered_protocols
from quicedge.tcp.info import unacknowledged
from quicedge.tcp.proxy_protocol import ProxyHeader, ProxyHeaderError, read_header
from quicedge.tcp.server_hello import key_exchange
from quicedge.tcp.tls import ServerContexts, ServerSide, refusal_of

_ReadInto = Callable[[int, memoryview], int]

_HANDSHAKE_RECORD = 0x16
"""Content type of the first record of every TLS connection (RFC 8446 section 5.1)."""

_NO_APPLICATION_PROTOCOL = bytes((0x15, 3, 3, 0, 2, 2, 120))
"""A record with a fatal alert (RFC 7301 section 3.2), for before the ServerHello."""

_ANSWER_SIZE = 32
"""Bytes of a record with a KeyUpdate (27) or an alert (31), at most."""

MAX_RECORD = 16 * 1024
"""Bytes of plaintext in a record (RFC 8446 section 5.1)."""


def _untouched(size: int) -> memoryview:
    """Zeros that are no memory of this process before they are written to."""
    return memoryview(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS))


_buffer = _untouched(TCP_READ_SIZE)
"""What any connection of this process reads into: its content is used before the next read."""

_PLAIN_SIZE = TCP_READ_SIZE + 2 * MAX_RECORD
"""Bytes that one read and what was left of the one before can be decrypted to."""
_plain = _untouched(_PLAIN_SIZE)
"""What is decrypted into, likewise."""


class HandshakeFailure(Enum):
    """Why a connection ended before it was established, as counted."""

    GONE = "gone"
    """The client closed the connection."""
    NOT_TLS = "not_tls"
    PLAIN_HTTP = "plain_http"
    PROXY_HEADER = "proxy_header"
    TIMEOUT = "timeout"
    CROWDED_OUT = "crowded_out"
    """A newer handshake of the same network took its place."""
    ALERT = "alert"
    """The client refused our certificate or parameters."""
    PROTOCOL = "protocol"
    """No TLS version, cipher or group in common, or not TLS after all."""
    UNKNOWN_NAME = "unknown_name"
    """There is no certificate for the name that it asks for."""
    NO_PROTOCOL = "no_protocol"
    """None of the client's application protocols (ALPN) is offered."""
    CLIENT_CERTIFICATE = "client_certificate"
    """Its certificate was not accepted, or it has none and needs one."""


_ALERTED = frozenset(
    {
        HandshakeFailure.PROTOCOL,
        HandshakeFailure.UNKNOWN_NAME,
        HandshakeFailure.NO_PROTOCOL,
        HandshakeFailure.CLIENT_CERTIFICATE,
    }
)
"""Failures of which the client gets an alert."""


class Session(Protocol):
    """What a connection speaks once it is established: an `asyncio.Protocol`."""

    def start(self) -> None:
        """The session is the protocol of its transport: it may write."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Owner(Protocol):
    """Who accepted a connection, and decides what becomes of it."""

    def plain(self, data: bytes) -> bytes | None:
        """What to answer to a client that begins with `data` instead of TLS; None: nothing."""

    def proxied(self, transport: TlsTransport, header: ProxyHeader) -> bool:
        """A PROXY header was received; whether its client is let in."""

    def waits(self, transport: TlsTransport, name: str) -> bool:
        """There is no certificate for the name; whether to wait for one, until `retry`."""

    def established(self, transport: TlsTransport) -> None:
        """The handshake is complete: call `TlsTransport.start`, or close it."""

    def failed(self, transport: TlsTransport, failure: HandshakeFailure) -> None:
        """The connection ends before it was established."""

    def lost(self, transport: TlsTransport) -> None:
        """The connection is gone; called once, last."""


class _State(Enum):
    PROXY = auto()
    """The PROXY header is not complete."""
    FIRST = auto()
    """Nothing was received."""
    HELLO = auto()
    """The ClientHello is not complete, and must be before TLS begins."""
    HANDSHAKE = auto()
    WAITING = auto()
    """There may soon be a certificate for the name that the client asks for."""
    OPEN = auto()
    HALF_CLOSED = auto()
    """Nothing more is written; input is delivered."""
    CLOSING = auto()
    """Everything is written; input is discarded until the client closes too."""
    CLOSED = auto()


_BEFORE = frozenset({_State.PROXY, _State.FIRST, _State.HELLO, _State.HANDSHAKE, _State.WAITING})
"""States in which a connection is not established."""

_RECEIVING = frozenset({_State.OPEN, _State.HALF_CLOSED})
"""States in which input is delivered."""


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a session, and the protocol of the TCP transport below.

    No call of the session comes from within its calls of `write`, `close` and the others, except
    `pause_writing`. After `close` or `abort` it gets `connection_lost` and nothing else.
    """

    def __init__(
        self,
        owner: Owner,
        contexts: ServerContexts,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        proxied: bool = False,
    ) -> None:
        """`proxied`: the connection begins with a PROXY header."""
        super().__init__()
        self.socket = sock
        """The accepted socket, for its facts. (Each call of the one that uvloop's transports have
        costs a socket object of its own and four system calls more.)"""
        self._owner = owner
        self._contexts = contexts
        self._loop = loop
        self._state = _State.PROXY if proxied else _State.FIRST
        self._header = b""
        self._hello: bytearray | None = None
        """What was received until our first answer."""
        self.refused: RefusedError | None = None
        """Why the client's certificate was not accepted."""
        self.group: str | None = None
        """The key exchange group by its registered name; None: none yet, or none at all."""
        self.hello_retried = False
        """Whether the client was sent a HelloRetryRequest."""
        self._session: Session | None = None
        self._tcp: asyncio.Transport
        self.tls: ServerSide
        """From the first bytes of the handshake on."""
        self._outgoing: ssl.MemoryBIO
        self._reading_paused = False
        self._client_closed = False
        """The client sent close_notify or a FIN: nothing more comes."""
        self._eof_reported = False
        self._discarded = 0
        self._answers: WorkBudget | None = None
        """For what TLS answers by itself, once it does."""
        self._timer: asyncio.TimerHandle | None = None
        self._undelivered = 0
        """Bytes that the client had not acknowledged when that was last checked."""
        self._corked: list[bytes] = []
        """What is to be written together, while it is gathered."""
        self.bytes_received = 0
        """From the network, TLS included."""
        self.bytes_sent = 0

    # --- from the TCP transport (asyncio.BufferedProtocol) ----------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._tcp = cast(asyncio.Transport, transport)
        self._tcp_write: Callable[[bytes], object] = self._tcp.write
        self._tcp.set_write_buffer_limits(TCP_WRITE_HIGH, TCP_WRITE_LOW)
        if self._state is _State.CLOSED:
            self._tcp.abort()  # while the loop was taking it over

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, size: int) -> None:
        self.bytes_received += size
        if size == TCP_READ_SIZE:
            # The loop would read on, up to 32 times: let other connections have their turn first.
            self._tcp.pause_reading()
            self._loop.call_soon(self._read_on)
        state = self._state
        if state is _State.OPEN and not self._client_closed:
            self._incoming_write(_buffer[:size])
            if not self._reading_paused:
                self._deliver()
        elif state is _State.HANDSHAKE:
            if self._hello is not None:
                self._hello += _buffer[:size]
            self._incoming_write(_buffer[:size])
            self._handshake()
        elif state is _State.FIRST:
            self._first(_buffer[:size])
        elif state is _State.HELLO:
            assert self._hello is not None
            self._hello += _buffer[:size]
            self._await_hello()
        elif state is _State.WAITING:
            self._wait_on(_buffer[:size])
        elif state is _State.PROXY:
            self._read_proxy_header(bytes(_buffer[:size]))
        elif state is _State.HALF_CLOSED and not self._client_closed:
            self._incoming_write(_buffer[:size])
            if not self._reading_paused:
                self._deliver()
        else:
            self._discard(size)

    def _read_on(self) -> None:
        if not self._reading_paused and self._state is not _State.CLOSED:
            self._tcp.resume_reading()

    def eof_received(self) -> bool:
        """The client has closed its half; the return value says whether ours stays open."""
        state = self._state
        if state in _RECEIVING:
            self._client_closed = True
            if not self._reading_paused:
                self._report_eof()
            return self._state in _RECEIVING
        if state in _BEFORE:
            self._fail(HandshakeFailure.GONE)
        return False

    def pause_writing(self) -> None:
        """Replaced by the session's own when it starts."""

    def resume_writing(self) -> None:
        """Replaced by the session's own when it starts."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state in _BEFORE:
            self._owner.failed(self, HandshakeFailure.GONE)
        self._state = _State.CLOSED
        if self._timer is not None:
            self._timer.cancel()
        session, self._session = self._session, None
        try:
            if session is not None:
                session.connection_lost(exc)
        finally:
            # Break the reference cycles.
            for name in ("pause_writing", "resume_writing"):
                self.__dict__.pop(name, None)
            self._owner.lost(self)

    # --- the handshake ------------------------------------------------------------------------

    def _read_proxy_header(self, data: bytes) -> None:
        data = self._header + data
        try:
            header = read_header(data)
        except ProxyHeaderError:
            self._fail(HandshakeFailure.PROXY_HEADER)
            return
        if header is None:
            self._header = data
            return
        self._header = b""
        self._state = _State.FIRST
        if self._owner.proxied(self, header) and len(data) > header.size:
            self._first(memoryview(data)[header.size :])

    def _first(self, data: memoryview) -> None:
        if data[0] != _HANDSHAKE_RECORD:
            answer = self._owner.plain(bytes(data[:64]))
            if answer is None:
                self._fail(HandshakeFailure.NOT_TLS)
            else:
                self._owner.failed(self, HandshakeFailure.PLAIN_HTTP)
                self._tcp.write(answer)
                self._finish()
            return
        self._hello = bytearray(data)
        if self._contexts.client_auth is None:
            self._begin()
        else:
            self._await_hello()

    def _await_hello(self) -> None:
        """Begin once the ClientHello is complete, because its server name decides how."""
        assert self._hello is not None
        if first_message(self._hello) or len(self._hello) > TLS_HELLO_SIZE:
            self._begin()
        else:
            self._state = _State.HELLO

    def _begin(self) -> None:
        """Begin the handshake with what was received."""
        hello = self._hello
        assert hello is not None
        incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming = incoming
        self._incoming_write = incoming.write
        self.tls = self._contexts.wrap(incoming, self._outgoing, hello)
        self.tls.hello = hello
        self._tls_read: _ReadInto = self.tls.read  # type: ignore[assignment]
        self._tls_write = self.tls.write
        self._outgoing_read = self._outgoing.read
        self._state = _State.HANDSHAKE
        incoming.write(hello)
        self._handshake()

    def _handshake(self) -> None:
        tls = self.tls
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._hello is not None and self._outgoing.pending:
                if tls.selected_alpn_protocol() is None and not self._has_common_protocol():
                    # OpenSSL would go on without one: what it has to say is never sent.
                    self._tcp.write(_NO_APPLICATION_PROTOCOL)
                    self._fail(HandshakeFailure.NO_PROTOCOL)
                    return
                self._hello = tls.hello = None
            self._flush_hello()
            return
        except ssl.SSLError as error:
            if tls.is_refused and self._waits():
                return
            self._flush()  # the alert
            if tls.is_refused:
                self._fail(HandshakeFailure.UNKNOWN_NAME)
                return
            self.refused = refusal_of(error)
            if self.refused is None:
                self._fail(_failure_of(error))
            else:
                self._fail(HandshakeFailure.CLIENT_CERTIFICATE)
            return
        # What is left of the handshake, the first words of the session and its answer to what came
        # with the end of the client's handshake go out at once. They must not wait for a response:
        # clients with Nagle's algorithm wait for an ACK.
        self._tcp_write = self._corked.append
        try:
            self._owner.established(self)
            self._flush()
            if self._state is _State.OPEN and self._incoming.pending and not self._reading_paused:
                self._deliver()
        finally:
            self._uncork()

    def _waits(self) -> bool:
        """Keep the client waiting instead of refusing the name that it asks for, if that helps."""
        name = self.tls.server_name
        if self._hello is None or name is None or not self._owner.waits(self, name):
            return False
        self._state = _State.WAITING
        return True

    def retry(self, contexts: ServerContexts) -> None:
        """There may be a certificate now: begin the handshake anew."""
        if self._state is _State.WAITING:
            assert self._hello is not None
            self._contexts = contexts
            self._state = _State.FIRST
            self._first(memoryview(bytes(self._hello)))

    def _wait_on(self, data: memoryview) -> None:
        """Keep what is received meanwhile, such as the rest of a long ClientHello."""
        assert self._hello is not None
        self._hello += data
        if len(self._hello) > ON_DEMAND_HELLO_MAX:
            self.refuse(HandshakeFailure.UNKNOWN_NAME)

    def _uncork(self) -> None:
        """Write what was gathered, if any, and from now on at once."""
        self._tcp_write = self._tcp.write
        if self._corked:
            self._tcp.write(b"".join(self._corked))
            self._corked.clear()

    def _flush_hello(self) -> None:
        """Send a flight of the handshake, and note what it says of the key exchange."""
        sealed = self._outgoing.read()
        if not sealed:
            return
        found = key_exchange(sealed)
        if found.is_retry:
            self.hello_retried = True
        elif found.group is not None:
            self.group = found.group
        self.bytes_sent += len(sealed)
        self._tcp_write(sealed)

    def _has_common_protocol(self) -> bool:
        """Whether the client leaves the choice to us, or offers a protocol that we do."""
        assert self._hello is not None
        offered = offered_protocols(self._hello)
        if b"http/1.0" in offered and "http/1.1" in self.alpn_offered:
            # Such as `curl --http1.0`: served like a client without ALPN.
            return True
        return not offered or any(name.encode() in offered for name in self.alpn_offered)

    def start(self, session: Session) -> None:
        """The handshake is complete and was accepted: deliver what comes to the session."""
        self._state = _State.OPEN
        self.set_protocol(cast(asyncio.BaseProtocol, session))

    def dismiss(self) -> None:
        """The handshake is complete, and all that the client wanted."""
        self._flush()
        self._finish()

    def refuse(self, failure: HandshakeFailure) -> None:
        """End a connection whose handshake is not complete."""
        if self._state is _State.WAITING:
            self._flush()  # the alert that was held back
        if self._state in _BEFORE:
            self._fail(failure)

    def _fail(self, failure: HandshakeFailure) -> None:
        self._owner.failed(self, failure)
        if failure in _ALERTED:
            self._finish()
        else:
            self.abort()

    # --- input ------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Give the session what is decrypted."""
        incoming, read = self._incoming, self._tls_read
        # Into one buffer: `read` would allocate as much as it may return, for each record.
        size = 0
        try:
            while incoming.pending:
                got = read(_PLAIN_SIZE, _plain[size:] if size else _plain)
                if not got:
                    self._client_closed = True
                    break
                size += got
        except ssl.SSLWantReadError:
            pass  # a part of a record
        except ssl.SSLZeroReturnError:
            self._client_closed = True
        except ssl.SSLError:
            # A forged or broken record: nothing after it can be trusted.
            self._flush()
            self.abort()
            return
        if self._outgoing.pending and not self._answer():
            return
        if size:
            session = self._session
            assert session is not None
            session.data_received(bytes(_plain[:size]))
        if self._client_closed and self._state in _RECEIVING and not self._reading_paused:
            self._report_eof()

    def _answer(self) -> bool:
        """Send what TLS itself answers, to key updates for example; False if the client asks for
        too much of it."""
        now = self._loop.time()
        if self._answers is None:
            self._answers = WorkBudget(TLS_ANSWERS_BURST, TLS_ANSWERS_RATE, now)
        answers = -(-self._outgoing.pending // _ANSWER_SIZE)
        if self._answers.spend(answers, now) is not Standing.GOOD:
            self.abort()
            return False
        if self._state is _State.OPEN:
            self._flush()
        return True

    def _report_eof(self) -> None:
        if self._eof_reported:
            return
        self._eof_reported = True
        session = self._session
        assert session is not None
        if not session.eof_received():
            self.close()

    def _discard(self, size: int) -> None:
        """Input after we closed: read, so that what we sent is not cut off by a reset."""
        self._discarded += size
        if self._discarded > TLS_MAX_DISCARDED:
            self.abort()

    # --- asyncio.Transport ------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._state is not _State.OPEN or not data:
            return
        self._tls_write(data)
        sealed = self._outgoing_read()
        self.bytes_sent += len(sealed)
        self._tcp_write(sealed)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        sealed = self._outgoing.read()
        if sealed:
            self.bytes_sent += len(sealed)
            self._tcp_write(sealed)

    def can_write_eof(self) -> bool:
        """Whether our half can end alone: before TLS 1.3, close_notify ended both
        (RFC 5246 section 7.2.1, RFC 8446 section 6.1)."""
        return self.tls.version() == "TLSv1.3"

    def write_eof(self) -> None:
        """Send what is written, then close_notify and FIN; go on reading."""
        if self._state is _State.OPEN:
            self._state = _State.HALF_CLOSED
            self._end_writing()
            self._tcp.write_eof()

    def _end_writing(self) -> None:
        """Send close_notify."""
        # `unwrap` also looks for the client's: it must not meet what is still to be delivered.
        kept = self._incoming.read() if self._incoming.pending else b""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # the client's is not there yet
        if kept:
            self._incoming.write(kept)
        self._flush()
        self._uncork()

    def close(self) -> None:
        """Send what is written, then close_notify and FIN, and wait for the client's."""
        if self._state is _State.OPEN:
            self._end_writing()
            self._finish()
        elif self._state is _State.HALF_CLOSED:
            self._finish()
        elif self._state is not _State.CLOSING:
            self.abort()

    def _finish(self) -> None:
        """Close our half; the rest when the client has closed its own, or does not move."""
        self._uncork()
        self._state = _State.CLOSING
        self._tcp.resume_reading()
        has_more = self._tcp.get_write_buffer_size() > 0
        if self._client_closed:
            self._tcp.close()
            if not has_more:
                return
        else:
            self._tcp.write_eof()
        self._undelivered = self._left() if has_more else 0
        self._timer = self._loop.call_later(TCP_CLOSE_CHECK, self._check_closing)

    def _check_closing(self) -> None:
        """End it once everything is written and the client had its time, or takes too little."""
        left = self._left() if self._tcp.get_write_buffer_size() else 0
        if not left or left > self._undelivered - MIN_PROGRESS:
            self.abort()
            return
        self._undelivered = left
        self._timer = self._loop.call_later(TCP_CLOSE_CHECK, self._check_closing)

    def _left(self) -> int:
        """Bytes that the client has not acknowledged: what the kernel takes from us goes by steps
        that slow clients need longer than TCP_CLOSE_CHECK for."""
        return self._tcp.get_write_buffer_size() + (unacknowledged(self.socket) or 0)

    def abort(self) -> None:
        """Close at once; what is not sent is lost."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            if hasattr(self, "_tcp"):
                self._tcp.abort()

    def is_closing(self) -> bool:
        return self._state in (_State.CLOSING, _State.CLOSED)

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            if self._state in _RECEIVING:
                self._tcp.resume_reading()
                if self._incoming.pending or self._client_closed:
                    self._loop.call_soon(self._resume_delivery)

    def _resume_delivery(self) -> None:
        """Deliver what came in one read with data after which the session paused."""
        if self._state in _RECEIVING and not self._reading_paused:
            self._deliver()

    def is_reading(self) -> bool:
        return not self._reading_paused and self._state in _RECEIVING

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        session = cast(Session, protocol)
        self._session = session
        # The TCP transport calls these without a step in between.
        self.__dict__["pause_writing"] = session.pause_writing
        self.__dict__["resume_writing"] = session.resume_writing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._session)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tcp.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    @property
    def alpn_offered(self) -> tuple[str, ...]:
        """The protocols that the listener offers."""
        return self._contexts.alpn

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self.tls
        if name == "socket":
            return self.socket
        return self._tcp.get_extra_info(name, default)


def _failure_of(error: ssl.SSLError) -> HandshakeFailure:
    """Whether the client ended a failed handshake, or we did."""
    by_client = "ALERT" in (error.reason or "")
    return HandshakeFailure.ALERT if by_client else HandshakeFailure.PROTOCOL
