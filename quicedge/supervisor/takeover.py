"""What this supervisor takes over from another one: of an upgrade, or of one that has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from quicedge.config.limits import ADOPTION_RETRY, ADOPTION_TIMEOUT
from quicedge.quic.fleet_identity import OTHER_PLACE, FleetIdentity, another_key, place_of
from quicedge.supervisor.adoption import Adopted, adopt, adoption_path, orphan_paths, release
from quicedge.supervisor.handover import Inherited
from quicedge.udp.connection_id_codec import MAX_WORKERS, slot_number
from quicedge.worker.adoption import Orphan
from quicedge.worker.estate import Estate, EstateError

log = structlog.get_logger("quicedge.supervisor")


@dataclass
class Takeover:
    """The sockets of the generation that serves, and the workers adopted so far."""

    estate: Estate
    secret: bytes
    upgrade: Inherited | None = None
    """The supervisor that hands over; None: it has died."""
    serving: list[Adopted] = field(default_factory=list)
    leaving: list[Adopted] = field(default_factory=list)
    """Workers of the generation before, which drain."""

    @property
    def slots(self) -> list[int]:
        """Of the generation that serves."""
        return [slot_number(self.estate.bank, worker) for worker in range(self.estate.workers)]


def of_upgrade(inherited: Inherited) -> Takeover:
    """What a running supervisor hands over; its workers follow later."""
    return Takeover(inherited.estate, inherited.secret, inherited)


def of_orphans(control: Path, identity: FleetIdentity | None) -> Takeover | None:
    """What a supervisor has left that had this control socket and died; None: nothing.

    `identity`: of this one, which cannot go on with the connections of another place in a fleet.
    Blocks, for as long as its workers take to answer.
    """
    if is_served(control):
        return None
    found = []
    for _, path in orphan_paths(control):
        try:
            found.append(adopt(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except (OSError, EstateError) as error:
            log.warning("worker not adopted", path=str(path), reason=str(error))
    for item in list(found):
        if (reason := _obstacle(item.orphan, identity)) is not None:
            log.warning("worker of the supervisor before ended", pid=item.pid, reason=reason)
            _end(item)
            adoption_path(control, item.orphan.slot).unlink(missing_ok=True)
            found.remove(item)
    serving = [item for item in found if item.orphan.is_active and not item.orphan.is_draining]
    if not serving:
        # Others drain, and end by themselves.
        for item in found:
            item.control.close()
            release(item.orphan.estate)
        return None
    first = serving[0]
    for item in found:
        if item is not first:
            release(item.orphan.estate)
    bank = first.orphan.estate.bank
    log.warning("adopting workers of a supervisor that died", workers=[x.pid for x in found])
    return Takeover(
        first.orphan.estate,
        first.orphan.secret,
        serving=[item for item in serving if item.orphan.slot // MAX_WORKERS == bank],
        leaving=[item for item in found if item.orphan.slot // MAX_WORKERS != bank],
    )


def _obstacle(orphan: Orphan, identity: FleetIdentity | None) -> str | None:
    """Why a supervisor cannot go on with the connections of a worker; None: it can."""
    if orphan.place != place_of(identity):
        return OTHER_PLACE
    return another_key(identity, orphan.id_keys)


def _end(worker: Adopted) -> None:
    """Kill it, and wait until its sockets are closed."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(worker.pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], ADOPTION_TIMEOUT)
        finally:
            os.close(process)
    worker.control.close()
    release(worker.orphan.estate)


def is_served(control: Path) -> bool:
    """Whether a supervisor answers at a control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(control))
        except OSError:
            return False
    return True


async def adopt_all(control: Path, slots: list[int]) -> list[Adopted]:
    """Adopt the workers of a supervisor that has just ended; those that fail are left out."""
    found = await asyncio.gather(
        *(asyncio.to_thread(_adopt_soon, adoption_path(control, slot)) for slot in slots)
    )
    return [item for item in found if item is not None]


def _adopt_soon(path: Path) -> Adopted | None:
    deadline = time.monotonic() + ADOPTION_TIMEOUT
    while True:
        try:
            adopted = adopt(path)
        except (OSError, EstateError) as error:
            if time.monotonic() < deadline and not isinstance(error, FileNotFoundError):
                time.sleep(ADOPTION_RETRY)
                continue
            log.warning("worker not adopted", path=str(path), reason=str(error))
            return None
        release(adopted.orphan.estate)
        return adopted
