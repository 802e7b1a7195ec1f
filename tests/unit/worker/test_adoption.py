"""How a worker without a supervisor gets the next one, and who does not become it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quicedge.admin.unix_socket import open_unix_socket
from quicedge.config.schema import Config
from quicedge.supervisor.adoption import adopt
from quicedge.worker import adoption as adoption_module
from quicedge.worker import main as main_module
from quicedge.worker.adoption import Adoption, Orphan
from quicedge.worker.estate import (
    Estate,
    EstateError,
    ListenerEstate,
    RedirectEstate,
    UdpEstate,
)

SECRET = b"s" * 32


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


class Waiting:
    """A worker that waits for a supervisor at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sockets = [udp() for _ in range(5)]
        self.adopted: list[socket.socket] = []
        first, second, tcp, plain, outbox = (sock.fileno() for sock in self.sockets)
        self.estate = Estate(
            bank=1,
            workers=1,
            listeners=[
                ListenerEstate(
                    text="127.0.0.1:443", address="127.0.0.1:443", protocols=["h3", "h2"], entry=0,
                    udp=UdpEstate([first, second], {1: [1]}), tcp=[tcp],
                )
            ],
            redirects=[RedirectEstate(text="127.0.0.1:80", entry=0, tcp=[plain])],
            outboxes={64: outbox},
        )  # fmt: skip
        self.roster = os.memfd_create("roster")
        self.adoption = Adoption(
            open_unix_socket(str(path)), os.geteuid(), self.describe, self.adopted.append
        )

    def describe(self) -> tuple[Orphan, int]:
        orphan = Orphan(
            slot=64, is_active=True, is_draining=False, secret=SECRET, place=b"",
            estate=self.estate, has_roster=True,
        )  # fmt: skip
        return orphan, self.roster

    def close(self) -> None:
        self.adoption.close()
        for sock in (*self.sockets, *self.adopted):
            sock.close()
        os.close(self.roster)


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    worker = Waiting(tmp_path / "control.sock.64")
    yield worker
    worker.close()


async def test_a_supervisor_gets_every_socket_and_the_workers_process(waiting: Waiting) -> None:
    waiting.adoption.open()
    found = await asyncio.to_thread(adopt, waiting.path)
    assert found.pid == os.getpid()
    assert (found.orphan.slot, found.orphan.secret) == (64, SECRET)
    estate = found.orphan.estate
    assert estate.listeners[0].udp is not None
    assert estate.listeners[0].udp.banks == {1: [1]}
    for ours, theirs in zip(estate.fds, waiting.estate.fds, strict=True):
        assert ours != theirs
        assert os.fstat(ours).st_ino == os.fstat(theirs).st_ino
        os.close(ours)
    assert os.fstat(found.roster_fd).st_ino == os.fstat(waiting.roster).st_ino
    os.close(found.roster_fd)
    # The connection is the control channel from now on.
    found.control.sendall(b"command")
    assert waiting.adopted[0].recv(100) == b"command"
    found.control.close()


async def test_a_worker_with_a_supervisor_is_not_adopted(waiting: Waiting) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(adopt, waiting.path, wait=0.2)
    assert waiting.adopted == []


async def test_who_asks_wrongly_or_not_at_all_gets_nothing(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption_module, "ADOPTION_TIMEOUT", 0.2)
    waiting.adoption.open()
    loop = asyncio.get_running_loop()
    for words in (b"", b"please, all your sockets"):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(waiting.path))
        await loop.sock_sendall(client, words)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                assert await loop.sock_recv(client, 100) == b""
        client.close()
    found = await asyncio.to_thread(adopt, waiting.path)
    for fd in (*found.orphan.estate.fds, found.roster_fd):
        os.close(fd)
    found.control.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_only_the_owner_adopts(waiting: Waiting, tmp_path: Path) -> None:
    # Even where the mode of the file is not what keeps others out.
    waiting.path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    waiting.adoption.open()
    program = (
        "import os, socket, sys; os.setresuid(12345, 12345, 12345); s = socket.socket(1); "
        "s.connect(sys.argv[1]); print(s.recv(100))"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(waiting.path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == "b''\n", done.stderr
    assert waiting.adopted == []


async def test_another_version_is_refused(waiting: Waiting) -> None:
    from msgspec.structs import replace

    waiting.estate = replace(waiting.estate, version=999)
    waiting.adoption.open()
    with pytest.raises(EstateError, match="version 999"):
        await asyncio.to_thread(adopt, waiting.path)


async def test_an_orphan_that_nobody_adopts_gives_up(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "ORPHAN_PATIENCE", 0.05)
    worker: Any = object.__new__(main_module._Worker)
    worker._dismissed, worker._draining = asyncio.Event(), None
    worker._adoption, worker._patience = waiting.adoption, None
    orders: list[Any] = []
    worker.drain = orders.append
    worker._edge = type("Edge", (), {"config": Config(drain_timeout=7.0)})
    worker._supervisor_lost()
    assert not worker._dismissed.is_set(), "it serves on"
    async with asyncio.timeout(10):
        await worker._dismissed.wait()
    assert [order.seconds for order in orders] == [7.0]
