"""An upgrade: the running supervisor starts the new program and hands over to it.

Both speak on a pair of unix sockets that the new program inherits. The old one sends a `Bequest`
with all its sockets, the new one starts its workers and says `Ready`; then the old supervisor ends
and leaves its workers to the new one, which adopts them (`supervisor.adoption`). If the new program
ends before, or says `Refused`, nothing has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from quicedge.config.limits import HANDOVER_TIMEOUT, UPGRADE_TIMEOUT
from quicedge.quic.fleet_identity import OTHER_PLACE, FleetIdentity, another_key, place_of
from quicedge.worker.estate import (
    ESTATE_VERSION,
    Estate,
    EstateError,
    receive_descriptors,
    receive_message,
    send_message,
)

log = structlog.get_logger("quicedge.supervisor")

VARIABLE = "QUICEDGE_HANDOVER"
"""Holds the number of the new program's end of the socket pair."""


class Bequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the new program gets. The descriptors follow: those of the estate, the admin API's
    socket and the control socket, as far as there are such."""

    version: int = ESTATE_VERSION
    estate: Estate
    secret: bytes
    place: bytes
    """`quic.fleet_identity.place_of`."""
    id_keys: dict[int, bytes] = {}
    """`quic.fleet_identity.marks_of`."""
    admin: str | None
    """`admin.listen` of the socket that comes along."""
    control: str
    """Path of the control socket."""
    reloads: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """New workers wait for connections."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The new program ends."""

    reason: str


class UpgradeError(Exception):
    """The new program does not take over; the message says why."""


@dataclass
class Inherited:
    """What this program got from the one that has started it."""

    estate: Estate
    secret: bytes
    admin: tuple[str, socket.socket] | None
    control: socket.socket
    control_path: Path
    reloads: int
    _link: socket.socket

    def ready(self) -> None:
        """Have the other supervisor end; raises OSError when it is gone already."""
        send_message(self._link, Ready(), [])

    def refuse(self, reason: str) -> None:
        """This program ends."""
        with contextlib.suppress(OSError):
            send_message(self._link, Refused(reason), [])
        self._link.close()

    def wait_for_end(self) -> None:
        """Blocks until the other supervisor has ended."""
        self._link.settimeout(HANDOVER_TIMEOUT)
        with contextlib.suppress(OSError):
            self._link.recv(1)
        self._link.close()


def inherited(identity: FleetIdentity | None) -> Inherited | None:
    """What another supervisor hands over to this program, whose place in a fleet is this one; None:
    nobody does. Raises UpgradeError."""
    link = _link()
    if link is None:
        return None
    link.settimeout(HANDOVER_TIMEOUT)
    try:
        found = _receive(link, identity)
    except UpgradeError:
        link.detach()  # `refuse` is to say why
        raise
    del os.environ[VARIABLE]  # is not for our own children
    return found


def _receive(link: socket.socket, identity: FleetIdentity | None) -> Inherited:
    try:
        bequest = msgspec.msgpack.decode(receive_message(link), type=Bequest)
        if bequest.version != ESTATE_VERSION:
            raise UpgradeError(
                f"the running edge speaks version {bequest.version} of the protocol, "
                f"this program version {ESTATE_VERSION}: restart instead"
            )
        if bequest.place != place_of(identity):
            raise UpgradeError(f"{OTHER_PLACE}: requires a restart")
        if (reason := another_key(identity, bequest.id_keys)) is not None:
            raise UpgradeError(reason)
        numbers = bequest.estate.fds
        fds = receive_descriptors(link, len(numbers) + (bequest.admin is not None) + 1)
    except (OSError, EstateError, msgspec.MsgspecError) as error:
        raise UpgradeError(f"cannot take over: {error}; restart instead") from error
    others = [socket.socket(fileno=fd) for fd in fds[len(numbers) :]]
    for sock in others:
        # As they are at the other supervisor, which shares the mode with us.
        sock.setblocking(False)
    return Inherited(
        estate=bequest.estate.renumbered(dict(zip(numbers, fds, strict=False))),
        secret=bequest.secret,
        admin=None if bequest.admin is None else (bequest.admin, others[0]),
        control=others[-1],
        control_path=Path(bequest.control),
        reloads=bequest.reloads,
        _link=link,
    )


def refuse(reason: str) -> None:
    """Tell the supervisor that has started this program, if any, why it does not take over."""
    link = _link()
    if link is not None:
        with contextlib.suppress(OSError):
            send_message(link, Refused(reason), [])
        link.detach()


def _link() -> socket.socket | None:
    number = os.environ.get(VARIABLE, "")
    return socket.socket(fileno=int(number)) if number.isdecimal() else None


class Successor:
    """The new program, seen by the supervisor that hands over to it."""

    def __init__(self, process: asyncio.subprocess.Process, link: socket.socket) -> None:
        self._process = process
        self._link = link

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, bequest: Bequest, fds: list[int]) -> Successor:
        """Start the program again as it was started, which may be another version by now.

        Raises UpgradeError unless it serves in time; then nothing is left of it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await asyncio.create_subprocess_exec(
                *sys.orig_argv,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, VARIABLE: str(theirs.fileno())},
            )
        except OSError as error:
            ours.close()
            raise UpgradeError(f"cannot start the program: {error}") from error
        finally:
            theirs.close()
        successor = cls(process, ours)
        try:
            await successor._wait_until_ready(bequest, fds)
        except BaseException:
            await successor.abandon()
            raise
        return successor

    async def _wait_until_ready(self, bequest: Bequest, fds: list[int]) -> None:
        self._link.settimeout(UPGRADE_TIMEOUT)
        asking = asyncio.create_task(asyncio.to_thread(self._exchange, bequest, fds))
        ending = asyncio.create_task(self._process.wait())
        done, _ = await asyncio.wait(
            {asking, ending}, timeout=UPGRADE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
        )
        if ending in done and not asking.done():
            # What it said before its end is still to be read.
            await asyncio.wait({asking}, timeout=HANDOVER_TIMEOUT)
        ending.cancel()
        if not asking.done():
            asking.cancel()
            raise UpgradeError(f"the new program does not serve within {UPGRADE_TIMEOUT:g} s")
        reason = asking.result()
        if reason is not None:
            raise UpgradeError(reason)

    def _exchange(self, bequest: Bequest, fds: list[int]) -> str | None:
        """Hand over, and wait for the answer: None, or why not. Blocks."""
        try:
            send_message(self._link, bequest, fds)
            answer = msgspec.msgpack.decode(receive_message(self._link), type=Ready | Refused)
        except (OSError, EstateError, msgspec.MsgspecError):
            return "the new program ended before it served; its own output says why"
        return answer.reason if isinstance(answer, Refused) else None

    async def abandon(self) -> None:
        """End the new program."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(HANDOVER_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
