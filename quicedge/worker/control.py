"""How the supervisor and a worker talk: the worker's specification, then questions and answers.

Messages are msgpack behind a 4-byte big-endian length, on a unix socket pair, the same both ways.
The first message is the `WorkerSpec`; every later one is a `_Call`, an `_Answer`, a `_Failure` or a
`_Notice`. What can be asked stands in `METHODS`; both ends check what they get against it.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import msgspec
import structlog

from quicedge.config.limits import CONTROL_MAX_PENDING, CONTROL_MESSAGE_MAX, CONTROL_TIMEOUT
from quicedge.config.schema import Config
from quicedge.quic.sharedkeys import SharedKeys
from quicedge.quic.tls import CertificatePem
from quicedge.telemetry.spans import Span
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    FollowAnswer,
    TraceAnswer,
    WorkerStats,
)
from quicedge.worker.privileges import Identity

log = structlog.get_logger(__name__)


class ListeningSocket(msgspec.Struct, frozen=True):
    """A UDP socket that the supervisor opened and the worker inherits."""

    fd: int
    address: str
    """Where it is bound, `host:port` or `[v6]:port`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changes, as the supervisor read it: a worker without privileges could not."""

    config: Config
    certificates: list[CertificatePem] = msgspec.field(default_factory=list)
    shared_keys: SharedKeys | None = None
    """Keys of tickets and tokens, where the operator gives a fleet its own."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker process starts from."""

    slot: int
    """0 to `workers - 1`."""
    workers: int
    bank: int = 0
    """Generation of workers, 0 or 1: connection IDs carry `bank * workers + slot`."""
    settings: Settings
    tolerant: bool = False
    """Serve what can be served when something that the settings name is out of reach: the worker
    takes the place of one that served, and the other routes must not go with one."""
    sockets: list[ListeningSocket]
    identity: Identity | None = None
    """Whom the worker becomes before it hears anybody; None: it stays who it is."""
    control_fd: int
    inbox_fd: int = -1
    """Where other workers forward datagrams to; -1 when there is but one."""
    outbox_fds: list[int] = msgspec.field(default_factory=list)
    """Towards the inboxes of all workers, by slot."""
    roster_fd: int = -1
    """Memory that the worker writes its clients into (`worker.roster`); -1: there is none."""
    secret: bytes
    """32 bytes shared by all workers: keys of tokens and stateless resets derive from them, unless
    the settings have shared keys."""

    @property
    def inherited_fds(self) -> list[int]:
        """Descriptors that the process needs besides the control socket."""
        inbox = [self.inbox_fd] if self.inbox_fd >= 0 else []
        roster = [self.roster_fd] if self.roster_fd >= 0 else []
        return [*(item.fd for item in self.sockets), *inbox, *self.outbox_fds, *roster]


class CloseOrder(msgspec.Struct, frozen=True, array_like=True):
    """A connection that an operator wants closed."""

    connection_id: str
    code: int
    reason: str


class TraceOrder(msgspec.Struct, frozen=True, array_like=True):
    """A connection whose trace an operator wants begun or ended."""

    connection_id: str
    action: Literal["start", "stop"]


class FollowOrder(msgspec.Struct, frozen=True, array_like=True):
    """What happened on a connection, and what happens until the next question."""

    connection_id: str
    follower: str
    """Who asks; a new one begins with the header."""
    level: Literal["core", "base", "extra"]


class Method(NamedTuple):
    """Types of a method's parameter and result; None: there is none."""

    parameter: Any
    result: Any


METHODS: Mapping[str, Method] = {
    # Asked of a worker.
    "connections": Method(ConnectionQuery, ConnectionPage),
    "connection": Method(str, ConnectionStats | None),
    "stats": Method(None, WorkerStats),
    "close_connection": Method(CloseOrder, bool),
    "trace_connection": Method(TraceOrder, TraceAnswer),
    "follow_connection": Method(FollowOrder, FollowAnswer),
    # Refuse new connections, tell clients (GOAWAY), say `drained` when all is done or after that
    # many seconds. Asked again, the shorter time counts; 0 is at once.
    "drain": Method(float, None),
    # Every worker has drained: exit. Until then newcomers are still told that nobody is here.
    "dismiss": Method(None, None),
    # A change of settings: build and open all that they need, beside what runs; then use that
    # (connections that live keep what they have), or let go of it. The last preparation counts.
    "prepare_settings": Method(Settings, None),
    "commit_settings": Method(None, None),
    "abort_settings": Method(None, None),
    "reopen_logs": Method(None, None),
    "set_log_level": Method(str, None),
    # Told by a worker.
    "ready": Method(None, None),
    "drained": Method(None, None),
    "failed": Method(str, None),
    "spans": Method(list[Span], None),
}


class ControlError(Exception):
    """The other side did not answer: it failed, it is busy, it took too long, or it is gone."""


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
        raise ControlError(f"a message of {len(body)} bytes is over {CONTROL_MESSAGE_MAX}")
    return _LENGTH.pack(len(body)) + body


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(value))


def _decode(data: msgspec.Raw, expected: Any) -> Any:
    return msgspec.msgpack.decode(data, type=type(None) if expected is None else expected)


def read_spec(fd: int) -> WorkerSpec:
    """The first message of a control socket, read before there is a loop.

    ControlError when the supervisor is gone or sent something else.
    """
    with socket.socket(fileno=fd) as control:
        try:
            (length,) = _LENGTH.unpack(_read_exactly(control, _LENGTH.size))
            if length > CONTROL_MESSAGE_MAX:
                raise ControlError(f"a specification of {length} bytes is too long")
            return msgspec.msgpack.decode(_read_exactly(control, length), type=WorkerSpec)
        except (OSError, msgspec.MsgspecError) as error:
            raise ControlError(f"no worker specification: {error}") from error
        finally:
            control.detach()


class StartError(Exception):
    """Why a worker cannot start, in one line."""


def tell_failure(fd: int, reason: str) -> None:
    """Tell the supervisor why there will be no worker, before there is a channel."""
    with socket.socket(fileno=fd) as control:
        try:
            control.sendall(_encode(_Notice("failed", _raw(reason))))
        except OSError:
            return  # the supervisor is gone, and sees the exit code if it is not
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
    """One end of the channel, on the running loop.

    `handlers` answer the other side's methods: called with the decoded parameter (or nothing when
    the method has none), plain or async. What a handler raises is the other side's ControlError
    and leaves this side as it was. `on_lost` is called once when the other side is gone; a worker
    then has no supervisor and should drain by itself.
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
            raise ValueError(f"no such control method: {', '.join(sorted(unknown))}")
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

    async def start(self) -> None:
        """Take the socket into the running loop."""
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._socket)

    def send_spec(self, spec: WorkerSpec) -> None:
        """What the supervisor sends first."""
        self._write(_encode(spec))

    async def call(
        self, method: str, parameter: Any = None, *, timeout: float = CONTROL_TIMEOUT
    ) -> Any:
        """Ask the other side; ControlError when no good answer comes within `timeout` seconds."""
        if len(self._waiting) >= CONTROL_MAX_PENDING:
            raise ControlError(f"{method}: {CONTROL_MAX_PENDING} questions are already waiting")
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
        """Tell the other side, without an answer; nothing happens when it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(_encode(_Notice(method, _raw(parameter))))

    @property
    def backlog(self) -> int:
        """Bytes that the other side has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Close after what was written is sent."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._socket.close()

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ControlError("the other side is gone")
        self._transport.write(data)

    # --- asyncio.Protocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > CONTROL_MESSAGE_MAX:
                self._break_off(f"a message of {length} bytes")
                return
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            try:
                message = _decoder.decode(body)
            except msgspec.MsgspecError as error:
                self._break_off(str(error))
                return
            self._handle(message)

    def connection_lost(self, error: Exception | None) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ControlError("the other side is gone"))
        for task in self._answering:
            task.cancel()
        if self._on_lost is not None:
            self._on_lost()

    def _break_off(self, reason: str) -> None:
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
                    return  # too late: the caller gave up
                if isinstance(message, _Answer):
                    answer.set_result(message.result)
                else:
                    answer.set_exception(ControlError(message.message))

    def _run_handler(self, method: str, parameter: msgspec.Raw) -> Any:
        handler = self._handlers.get(method)
        if handler is None:
            raise ControlError(f"{method}: not answered here")
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
                raise ControlError(f"{call.method}: too many questions at once")
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
