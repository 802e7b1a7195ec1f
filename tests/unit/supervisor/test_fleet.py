"""Which hosts of a fleet are up: probed over real sockets, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from quicedge.config.host_port import HostPort
from quicedge.config.limits import FLEET_PEERS
from quicedge.quic.fleet_identity import FleetIdentity, IdKey, instance_of
from quicedge.supervisor.fleet import FleetDirectory
from quicedge.udp.fleet import FleetForwarder
from quicedge.udp.socket import UdpSocket, open_socket
from quicedge.worker.control import Peer

SECRET = b"f" * 32


def identity(server_id: bytes, secret: bytes = SECRET) -> FleetIdentity:
    keys = [IdKey(0, None)]
    return FleetIdentity(server_id=server_id, nonce_length=8, id_keys=keys, secret=secret)


class Host:
    """The worker of a host that answers probes."""

    def __init__(self, server_id: bytes, secret: bytes = SECRET, own: bytes = b"") -> None:
        who = identity(server_id, secret)
        self.socket = UdpSocket(open_socket(2, "127.0.0.1", 0))
        self.forwarder = FleetForwarder(
            server_id, who.server_ids(), secret, instance=instance_of(own or server_id),
            sockets=[self.socket],
        )  # fmt: skip
        self.address = f"127.0.0.1:{self.socket.address[1]}"
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._readable)

    def _readable(self) -> None:
        self.socket.receive(
            lambda datagrams, path, ecn: [
                self.forwarder.forward(data, path, ecn) for data in datagrams
            ]
        )

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())

    def close(self) -> None:
        self.stop()
        self.socket.close()
        self.forwarder.close()


class Directory:
    """That of the host with server ID 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("quicedge.supervisor.fleet.FLEET_PROBE_INTERVAL", 0.05)
        self.now = 1000.0
        self.told: list[list[Peer]] = []
        self.directory = FleetDirectory(b"own", self.told.append, clock=lambda: self.now)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    def servers(self) -> list[bytes]:
        return [peer.server_id for peer in self.directory.peers]


@asynccontextmanager
async def running(
    monkeypatch: pytest.MonkeyPatch, *hosts: Host, more: tuple[str, ...] = ()
) -> AsyncIterator[Directory]:
    directory = Directory(monkeypatch)
    peers = [host.address for host in hosts] + list(more)
    directory.directory.configure(identity(b"\0\1"), peers)
    try:
        yield directory
    finally:
        directory.directory.close()
        for host in hosts:
            host.close()


async def test_hosts_that_answer_are_known_by_their_server_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two, three = Host(b"\0\2"), Host(b"\0\3")
    async with running(monkeypatch, two, three) as here:
        await here.until(lambda: here.servers() == [b"\0\2", b"\0\3"])
        assert [f"{peer.host}:{peer.port}" for peer in here.directory.peers] == [
            two.address, three.address,
        ]  # fmt: skip
        assert here.told[-1] == here.directory.peers
        status = here.directory.status
        assert status is not None
        assert [(peer.server_id, peer.up) for peer in status.peers] == [
            ("0002", True), ("0003", True),
        ]  # fmt: skip


async def test_a_host_that_stops_answering_is_down_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = Host(b"\0\2")
    async with running(monkeypatch, two) as here:
        await here.until(lambda: here.servers() == [b"\0\2"])
        two.stop()
        await here.until(lambda: here.servers() == [])
        assert here.told[-1] == []
        asyncio.get_running_loop().add_reader(two.socket.fileno(), two._readable)
        await here.until(lambda: here.servers() == [b"\0\2"])


async def test_a_pause_of_this_machine_takes_no_host_down(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Host(b"\0\2")
    async with running(monkeypatch, two) as here:
        await here.until(lambda: here.servers() == [b"\0\2"])
        here.told.clear()
        here.now += 3600
        here.directory._publish()
        assert here.told == []


async def test_this_host_is_not_its_own_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    own, two = Host(b"\0\1", own=b"own"), Host(b"\0\2")
    async with running(monkeypatch, own, two) as here:
        await here.until(lambda: here.servers() == [b"\0\2"])
        status = here.directory.status
        assert status is not None
        assert [peer.this_host for peer in status.peers] == [True, False]


async def test_a_host_that_claims_our_server_id_is_no_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims: list[str] = []
    monkeypatch.setattr(
        FleetDirectory, "_log_conflict", staticmethod(lambda claim, count: claims.append(claim))
    )
    thief, two = Host(b"\0\1"), Host(b"\0\2")
    async with running(monkeypatch, thief, two) as here:
        await here.until(lambda: here.servers() == [b"\0\2"] and bool(claims))
        assert claims[0] == f"{thief.address} 0001"


async def test_a_host_with_another_secret_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger, two = Host(b"\0\3", secret=b"g" * 32), Host(b"\0\2")
    async with running(monkeypatch, stranger, two) as here:
        await here.until(lambda: here.servers() == [b"\0\2"])
        await asyncio.sleep(0.05)
        assert here.servers() == [b"\0\2"]


async def test_a_name_leads_to_all_its_addresses_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two, three = Host(b"\0\2"), Host(b"\0\3")
    found = [two.address]

    async def look_up(name: str, port: int, **options: Any) -> list[Any]:
        if name == "edge.example":
            addresses = [HostPort.parse(text) for text in found]
            return [(2, 2, 17, "", tuple(address)) for address in addresses]
        raise OSError("no such name")

    async with running(monkeypatch, more=("edge.example:443",)) as here:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        await here.until(lambda: here.servers() == [b"\0\2"])
        found.append(three.address)
        here.now += 60
        await here.until(lambda: here.servers() == [b"\0\2", b"\0\3"])
        found.clear()
        found.extend(f"127.1.{n // 250}.{n % 250 + 1}:9" for n in range(1, FLEET_PEERS + 50))
        here.now += 60
        await here.until(lambda: here.servers() == [])
        status = here.directory.status
        assert status is not None
        assert len(status.peers) == FLEET_PEERS
        here.directory.configure(None, [])
        await here.until(lambda: here.directory.status is None and here.directory._task is None)
    two.close()
    three.close()


async def test_a_fault_while_probing_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Host(b"\0\2")
    faults = iter([RuntimeError("a fault of ours")] * 3)

    async with running(monkeypatch, two) as here:
        probe_all = here.directory._probe_all

        async def failing() -> None:
            for fault in faults:
                raise fault
            await probe_all()

        monkeypatch.setattr(here.directory, "_probe_all", failing)
        await here.until(lambda: here.servers() == [b"\0\2"])
