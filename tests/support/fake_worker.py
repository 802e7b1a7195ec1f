"""A worker without QUIC: what the supervisor's tests put in the place of `quicedge.worker.main`.

It obeys datagrams: `who` answers JSON about itself, `hold` and `release` begin and end an exchange
that a drain has to wait for, `access PATH` writes an access record, `crash` ends it, `hang` stops
its loop. The variable FAKE_WORKER says how it fails before it is ready: `exit` or `silent`,
or names a file that it waits for.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time

from quicedge.telemetry.access import AccessRecord
from quicedge.telemetry.logs import Logs
from quicedge.telemetry.stats import (
    ConnectionPage,
    ConnectionQuery,
    ConnectionStats,
    WorkerStats,
    select,
)
from quicedge.worker.control import (
    AT_ONCE,
    ControlChannel,
    ControlError,
    DrainOrder,
    Settings,
    StartError,
    WorkerSpec,
)

REFUSED_BY_SLOT = 9000
"""`quic.max_streams` of 9000 and K cannot be prepared in slot K."""

FATAL_AT_START = 8000
"""`quic.max_streams` of 8000 can be prepared, and no worker starts with it."""


class FakeWorker(asyncio.DatagramProtocol):
    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.settings = spec.settings
        self.prepared: Settings | None = None
        self.logs = Logs(spec.settings.config.log, process=f"worker {spec.slot}")
        self.held = False
        self.draining = False
        self.finished = asyncio.Event()
        self.dismissed = asyncio.Event()
        now = time.time()
        self.connections = [
            ConnectionStats(
                id=f"{spec.slot:02x}{n:02x}",
                worker=spec.slot,
                time=now,
                created_at=float(n),
                remote_address=f"192.0.2.{n}:{5000 + spec.slot}",
            )
            for n in range(3)
        ]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for item in self.spec.sockets:
            sock = socket.socket(fileno=os.dup(item.fd))
            sock.setblocking(False)
            loop.add_reader(sock, self.readable, sock)
        channel = ControlChannel(
            self.spec.control_fd,
            {
                "connections": self.select,
                "connection": lambda id: next((c for c in self.connections if c.id == id), None),
                "stats": lambda: WorkerStats(
                    slot=self.spec.slot, pid=os.getpid(), connections=len(self.connections)
                ),
                "drain": self.drain,
                "dismiss": self.dismissed.set,
                "prepare_settings": self.prepare_settings,
                "commit_settings": self.commit_settings,
                "abort_settings": self.abort_settings,
                "reopen_logs": self.logs.reopen,
            },
            on_lost=self.supervisor_lost,
        )
        await channel.start()
        how = os.environ.get("FAKE_WORKER", "")
        while how.startswith("/") and not os.path.exists(how):  # noqa: ASYNC240
            if self.dismissed.is_set():
                return
            await asyncio.sleep(0.02)
        if how != "silent":
            channel.notify("ready")
        await self.finished.wait()
        channel.notify("drained")
        await self.dismissed.wait()
        self.logs.close()

    def select(self, query: ConnectionQuery) -> ConnectionPage:
        return select(self.connections, query)

    def drain(self, order: DrainOrder) -> None:
        self.draining = True
        if not self.held:
            self.finished.set()
        seconds = max(order.seconds, order.long)
        asyncio.get_running_loop().call_later(seconds, self.finished.set)

    def supervisor_lost(self) -> None:
        self.drain(AT_ONCE)
        self.dismissed.set()

    def prepare_settings(self, settings: Settings) -> None:
        if settings.config.quic.max_streams == REFUSED_BY_SLOT + self.spec.slot:
            raise ControlError(f"quic.max_streams: slot {self.spec.slot} does not like it")
        self.prepared = settings

    def commit_settings(self) -> None:
        assert self.prepared is not None
        self.settings, self.prepared = self.prepared, None
        logs = self.logs.successor(self.settings.config.log)
        self.logs = self.logs.replace_by(logs)

    def abort_settings(self) -> None:
        self.prepared = None

    def readable(self, sock: socket.socket) -> None:
        data, address = sock.recvfrom(2048)
        # Before the command come the bytes that steer it here.
        match data[7:].decode().split():
            case ["who"]:
                sock.sendto(json.dumps(self.describe()).encode(), address)
            case ["hold"]:
                self.held = True
                sock.sendto(b"held", address)
            case ["release"]:
                self.held = False
                if self.draining:
                    self.finished.set()
            case ["access", path]:
                if self.logs.access is not None:
                    self.logs.access.log(_record(path))
                sock.sendto(b"logged", address)
            case ["crash"]:
                os._exit(3)
            case ["hang"]:
                time.sleep(600)

    def describe(self) -> dict:
        return {
            "slot": self.spec.slot,
            "pid": os.getpid(),
            "secret": self.spec.secret.hex(),
            "draining": self.draining,
            "drain_timeout": self.settings.config.drain_timeout,
            "prepared": self.prepared is not None,
            "certificates": [item.cert_file for item in self.settings.certificates],
            "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
            "argv": sys.argv,
            "environ": sorted(os.environ),
            "random": random.random(),
        }


def _record(path: str) -> AccessRecord:
    return AccessRecord(
        method="GET",
        authority="example.com",
        path=path,
        status=200,
        outcome="complete",
        bytes_received=0,
        bytes_sent=0,
        total_seconds=0.0,
    )


def run(spec: WorkerSpec) -> None:
    if os.environ.get("FAKE_WORKER") == "exit":
        sys.exit(7)
    if spec.settings.config.quic.max_streams == FATAL_AT_START:
        raise StartError("quic.max_streams: too many for me")

    async def main() -> None:
        await FakeWorker(spec).run()

    asyncio.run(main())
