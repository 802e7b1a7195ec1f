"""The control channel between the supervisor and a worker: RPC over a unix socket pair.

Messages are msgpack with a 4-byte big-endian length prefix, in both directions. The first one is
the `WorkerSpec`; every later one is a `_Call`, an `_Answer`, a `_Failure` or a `_Notice`. `METHODS`
defines the methods; both ends validate messages against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import msgspec
import structlog

from quicedge.acme.challenge import Challenges
from quicedge.client_auth.material import ClientAuthPem
from quicedge.config.countlimits import CONTROL_LAST_WORDS
from quicedge.config.limits import (
    CONTROL_MAX_PENDING,
    CONTROL_MESSAGE_MAX,
    CONTROL_TIMEOUT,
    DRAIN_NOTICE,
)
from quicedge.config.schema import Config
from quicedge.proxy.alt_svc import Advertising, AltSvcReport
from quicedge.quic.fleet_identity import FleetIdentity
from quicedge.quic.ticket_keys import SharedKeys
from quicedge.quic.tls import CertificatePem
from quicedge.telemetry.comparison import Samples
from quicedge.telemetry.spans import Span
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    KeyUpdateVerdict,
    TraceAction,
    TraceAnswer,
    WorkerStats,
)
from quicedge.worker.estate import Estate
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


class ListeningSocket(msgspec.Struct, frozen=True):
    """A UDP or TCP socket that the supervisor opened and the worker inherits."""

    fd: int
    address: str
    """The bound address, `host:port` or `[v6]:port`."""
    entry: int = 0
    """Index in `listen`; of a socket for plain HTTP, in `config.listeners.redirecting`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reload replaces; read by the supervisor, which has the privileges."""

    config: Config
    certificates: list[CertificatePem] = msgspec.field(default_factory=list)
    managed: list[CertificatePem] = msgspec.field(default_factory=list)
    """Certificates by ACME, which change without a reload."""
    client_auth: list[ClientAuthPem] = msgspec.field(default_factory=list)
    """The entries of `tls.client_auth`."""
    shared_keys: SharedKeys | None = None
    """Ticket and token keys, if the operator configured them for a fleet."""
    fleet: FleetIdentity | None = None


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """A host of the fleet that answers."""

    server_id: bytes
    host: str
    port: int


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a worker process starts from."""

    slot: int
    """Bank and number of the worker, as connection IDs carry them (`udp.connection_id_codec`)."""
    workers: int
    """In its bank."""
    settings: Settings
    tolerant: bool = False
    """Serve as much as possible when a configured resource is unavailable: the worker replaces one
    that served, and one broken route must not take down the others."""
    sockets: list[ListeningSocket]
    """UDP."""
    tcp_sockets: list[ListeningSocket] = msgspec.field(default_factory=list)
    redirect_sockets: list[ListeningSocket] = msgspec.field(default_factory=list)
    """TCP, for plain HTTP."""
    identity: Identity | None = None
    """User that the worker runs as before it reads any datagram; None: unchanged."""
    control_fd: int
    inbox_fd: int = -1
    """Receives datagrams forwarded by other workers; -1 with a single worker."""
    outbox_fds: dict[int, int] = msgspec.field(default_factory=dict)
    """The sending ends of all workers' inboxes, by slot (`udp.connection_id_codec`)."""
    roster_fd: int = -1
    """Shared memory in which the worker lists its clients (`worker.roster`); -1: none."""
    adoption_fd: int = -1
    """Listens for the next supervisor when this one is gone (`worker.adoption`); -1: drain then."""
    owner: int = 0
    """User of the supervisor."""
    estate: Estate | None = None
    """All sockets of the generation, for the next supervisor."""
    secret: bytes
    """32 bytes shared by all workers, from which the keys of tokens and stateless resets are
    derived, unless the settings have shared keys."""

    @property
    def inherited_fds(self) -> list[int]:
        """Descriptors that the process inherits besides the control socket."""
        inbox = [self.inbox_fd] if self.inbox_fd >= 0 else []
        roster = [self.roster_fd] if self.roster_fd >= 0 else []
        listening = [item.fd for item in (*self.sockets, *self.tcp_sockets, *self.redirect_sockets)]
        adoption = [self.adoption_fd] if self.adoption_fd >= 0 else []
        estate = self.estate.fds if self.estate is not None else []
        found = [*listening, *inbox, *self.outbox_fds.values(), *roster, *adoption, *estate]
        return list(dict.fromkeys(found))


class DrainOrder(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker drains; all times are in seconds from now."""

    notice: float
    """Until it rejects new requests on open connections, which it asks to go elsewhere at once."""
    seconds: float
    """Until it closes connections with requests in progress."""
    long: float
    """The same for requests without an end in sight."""
    succeeded: bool = False
    """Other workers have taken its place: new connections are theirs, not refused."""


def shutdown_order(config: Config) -> DrainOrder:
    """How all workers drain at a shutdown."""
    long = config.drain_timeout if config.long_drain is None else config.long_drain
    notice = min(DRAIN_NOTICE, config.drain_timeout / 2)
    return DrainOrder(notice=notice, seconds=config.drain_timeout, long=long)


def succession_order(config: Config) -> DrainOrder:
    """How workers drain that others have replaced.

    Clients have `drain_timeout` to go to the successors by themselves; nobody waits for those that
    still have requests in progress.
    """
    return DrainOrder(
        notice=config.drain_timeout,
        seconds=max(config.upgrade_drain, config.drain_timeout),
        long=max(config.upgrade_drain, config.drain_timeout),
        succeeded=True,
    )


AT_ONCE = DrainOrder(notice=0.0, seconds=0.0, long=0.0)


class CloseCommand(msgspec.Struct, frozen=True, array_like=True):
    """Close a connection."""

    connection_id: str
    code: int
    reason: str


class TraceCommand(msgspec.Struct, frozen=True, array_like=True):
    """Start or stop the trace of a connection."""

    connection_id: str
    action: TraceAction


class FollowCommand(msgspec.Struct, frozen=True, array_like=True):
    """Return the events of a connection since the follower's previous call."""

    connection_id: str
    follower: str
    """Identifies the caller; a new one first receives the header."""
    level: Literal["core", "base", "extra"]


class Method(NamedTuple):
    """Types of a method's parameter and result; None for none."""

    parameter: Any
    result: Any


METHODS: Mapping[str, Method] = {
    # Called on a worker.
    "connections": Method(ConnectionQuery, ConnectionPage),
    "connection": Method(str, ConnectionStats | None),
    "stats": Method(None, WorkerStats),
    "samples": Method(None, Samples),
    "close_connection": Method(CloseCommand, bool),
    "update_keys": Method(str, KeyUpdateVerdict),
    "trace_connection": Method(TraceCommand, TraceAnswer),
    "follow_connection": Method(FollowCommand, FollowAnswer),
    # Take no new connections, send GOAWAY, and notify `drained` when all exchanges are done or
    # their time is over. May be repeated; the shorter time counts, and 0 means immediately.
    "drain": Method(DrainOrder, None),
    # Every worker has drained, or the successors serve: exit. Until then new clients are refused.
    "dismiss": Method(None, None),
    # Two-phase change of settings: prepare builds and opens everything they need; commit applies it
    # (live connections keep theirs) and abort discards it. The last prepare counts.
    "prepare_settings": Method(Settings, None),
    "commit_settings": Method(None, None),
    "abort_settings": Method(None, None),
    # What the TCP listeners advertise to clients, for those whose state has changed.
    "set_alt_svc": Method(dict[str, Advertising], None),
    # The hosts that datagrams are forwarded to.
    "set_peers": Method(list[Peer], None),
    # All that is answered to issuers of certificates, in place of what was before.
    "use_challenges": Method(Challenges, None),
    # Names that get no certificate on demand.
    "refuse_names": Method(list[str], None),
    # What workers that have ended had counted, for the next supervisor to ask for.
    "keep_totals": Method(bytes, None),
    "kept_totals": Method(None, bytes),
    # The supervisor ends on purpose: the next one is to replace this worker.
    "leave": Method(None, None),
    "reopen_logs": Method(None, None),
    "set_log_level": Method(str, None),
    # Notified by a worker.
    "ready": Method(None, None),
    "drained": Method(None, None),
    # What it has counted, at its end.
    "counted": Method(WorkerStats, None),
    "failed": Method(str, None),
    "spans": Method(list[Span], None),
    "alt_svc": Method(AltSvcReport, None),
    # Names that clients ask for and that have no certificate.
    "names_missing": Method(list[str], None),
}


class ControlError(Exception):
    """The peer did not answer: it failed, is busy, timed out or is gone."""


Handler = Callable[..., Any]


class _Call(msgspec.Struct, tag="call", array_like=True):
    id: int
    method: str
    parameter: msgspec.Raw


class _Answer(msgspec.Struct, tag="answer", array_like=True):
    id: int
    result: msgspec.Raw


class _Failure(msgspec.Struct, tag="failure", array_like=True):
    id: int
    message: str


class _Notice(msgspec.Struct, tag="notice", array_like=True):
    method: str
    parameter: msgspec.Raw


_LENGTH = struct.Struct("!I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Call | _Answer | _Failure | _Notice)


def _encode(value: Any) -> bytes:
    body = _encoder.encode(value)
    if len(body) > CONTROL_MESSAGE_MAX:
        raise ControlError(f"message of {len(body)} bytes exceeds {CONTROL_MESSAGE_MAX}")
    return _LENGTH.pack(len(body)) + body


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(value))


def _decode(data: msgspec.Raw, expected: Any) -> Any:
    return msgspec.msgpack.decode(data, type=type(None) if expected is None else expected)


def read_spec(fd: int) -> WorkerSpec:
    """Read the first message of a control socket, before there is an event loop.

    Raises ControlError when the supervisor is gone or sent something else.
    """
    with socket.socket(fileno=fd) as control:
        try:
            (length,) = _LENGTH.unpack(_read_exactly(control, _LENGTH.size))
            if length > CONTROL_MESSAGE_MAX:
                raise ControlError(f"worker specification too long: {length} bytes")
            return msgspec.msgpack.decode(_read_exactly(control, length), type=WorkerSpec)
        except (OSError, msgspec.MsgspecError) as error:
            raise ControlError(f"no worker specification: {error}") from error
        finally:
            control.detach()


class StartError(Exception):
    """A worker cannot start; the message says why, in one line."""


def report_failure(fd: int, reason: str) -> None:
    """Report a failed start to the supervisor, before there is a channel."""
    with socket.socket(fileno=fd) as control:
        try:
            control.sendall(_encode(_Notice("failed", _raw(reason))))
        except OSError:
            return  # the supervisor is gone
        finally:
            control.detach()


def _read_exactly(control: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece:
            raise ControlError("the supervisor closed the control socket")
        data += piece
    return bytes(data)


class ControlChannel(asyncio.Protocol):
    """One end of the channel, on the running loop. Call `start` first.

    `handlers` implement the methods that the peer calls, as functions or coroutines; each takes the
    decoded parameter if its method has one. An exception of a handler is a ControlError at the peer
    and does not affect this end. `on_lost` is called once when the peer is gone; a worker should
    then drain.
    """

    def __init__(
        self,
        control: int | socket.socket,
        handlers: Mapping[str, Handler],
        *,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        unknown = handlers.keys() - METHODS.keys()
        if unknown:
            raise ValueError(f"unknown control method: {', '.join(sorted(unknown))}")
        self._socket = (
            control if isinstance(control, socket.socket) else socket.socket(fileno=control)
        )
        self._handlers = handlers
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._next_id = 0
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()

    async def start(self) -> None:
        """Attach the socket to the running loop."""
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._socket)

    def send_spec(self, spec: WorkerSpec) -> None:
        """Send the specification, the first message of the supervisor."""
        self._write(_encode(spec))

    async def call(
        self, method: str, parameter: Any = None, *, timeout: float = CONTROL_TIMEOUT
    ) -> Any:
        """Call a method of the peer; raises ControlError without a valid answer in `timeout` s."""
        if len(self._waiting) >= CONTROL_MAX_PENDING:
            raise ControlError(f"{method}: {CONTROL_MAX_PENDING} calls already in progress")
        self._next_id += 1
        call_id = self._next_id
        self._write(_encode(_Call(call_id, method, _raw(parameter))))
        answer = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = answer
        try:
            async with asyncio.timeout(timeout):
                return _decode(await answer, METHODS[method].result)
        except TimeoutError:
            raise ControlError(f"{method}: no answer within {timeout:g} s") from None
        except msgspec.MsgspecError as error:
            raise ControlError(f"{method}: malformed answer: {error}") from error
        finally:
            del self._waiting[call_id]

    def notify(self, method: str, parameter: Any = None) -> None:
        """Notify the peer, without an answer; does nothing when it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(_encode(_Notice(method, _raw(parameter))))

    @property
    def backlog(self) -> int:
        """Bytes that the peer has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def flush(self) -> None:
        """Wait until all pending data is sent, for CONTROL_LAST_WORDS at most."""
        # Polled, because only a worker that ends asks, and most have nothing left by then.
        deadline = time.monotonic() + CONTROL_LAST_WORDS
        while self.backlog and time.monotonic() < deadline and not self._lost.is_set():
            await asyncio.sleep(0.005)

    async def lost(self) -> None:
        """Wait until the connection is closed and all that the peer sent before is handled, for
        CONTROL_LAST_WORDS at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONTROL_LAST_WORDS):
                await self._lost.wait()

    def close(self) -> None:
        """Close once pending data is sent."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._socket.close()

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ControlError("peer is gone")
        self._transport.write(data)

    # --- asyncio.Protocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > CONTROL_MESSAGE_MAX:
                self._abort(f"message of {length} bytes")
                return
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            try:
                message = _decoder.decode(body)
            except msgspec.MsgspecError as error:
                self._abort(str(error))
                return
            self._handle(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ControlError("peer is gone"))
        for task in self._answering:
            task.cancel()
        if self._on_lost is not None:
            self._on_lost()

    def _abort(self, reason: str) -> None:
        log.error("control channel closed", reason=reason)
        assert self._transport is not None
        self._buffer.clear()
        self._transport.abort()

    def _handle(self, message: _Call | _Answer | _Failure | _Notice) -> None:
        match message:
            case _Call():
                self._answer(message)
            case _Notice():
                try:
                    self._run_handler(message.method, message.parameter)
                except Exception:
                    log.exception("control notice failed", method=message.method)
            case _Answer() | _Failure():
                answer = self._waiting.get(message.id)
                if answer is None or answer.done():
                    return  # late: the caller timed out
                if isinstance(message, _Answer):
                    answer.set_result(message.result)
                else:
                    answer.set_exception(ControlError(message.message))

    def _run_handler(self, method: str, parameter: msgspec.Raw) -> Any:
        handler = self._handlers.get(method)
        if handler is None:
            raise ControlError(f"{method}: no handler")
        expected = METHODS[method].parameter
        if expected is None:
            return handler()
        return handler(_decode(parameter, expected))

    def _answer(self, call: _Call) -> None:
        try:
            result = self._run_handler(call.method, call.parameter)
            if not inspect.isawaitable(result):
                self._reply(call, result)
                return
            if len(self._answering) >= CONTROL_MAX_PENDING:
                _discard(result)
                raise ControlError(f"{call.method}: too many calls in progress")
        except Exception as error:
            self._fail(call, error)
            return
        task = asyncio.ensure_future(self._answer_later(call, result))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer_later(self, call: _Call, result: Awaitable[Any]) -> None:
        try:
            self._reply(call, await result)
        except Exception as error:
            self._fail(call, error)

    def _reply(self, call: _Call, result: Any) -> None:
        self._write(_encode(_Answer(call.id, _raw(result))))

    def _fail(self, call: _Call, error: Exception) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not isinstance(error, ControlError):
            log.warning("control call failed", method=call.method, exc_info=error)
            error = ControlError(f"{call.method}: {type(error).__name__}: {error}")
        self._write(_encode(_Failure(call.id, str(error)[:1000])))


def _discard(result: Awaitable[Any]) -> None:
    if inspect.iscoroutine(result):
        result.close()
