"""`make soak ARGS=fleet`: three hosts behind one address, with clients that migrate and rebind.

Hosts are drained, killed and upgraded under load. The verdict is that nobody loses a connection
but the clients of the killed host, who learn of it soon; new clients always reach a host that
lives. `ecmp` has the hosts in network namespaces behind a router with a route of several next hops,
by which the kernel chooses from addresses and ports; `balancer` behind a NAT that reads server IDs,
`nat` behind one that knows only the address and port of clients, as a Service of Kubernetes does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from interop.runner.topology import TopologyError, run_ip
from quicedge.cli.adminclient import AdminClient, AdminError
from quicedge.config import devcerts
from quicedge.udp.quic_lb import QuicLb
from tests.support.balancer import Balancer, balancer
from tests.support.edge import REPOSITORY
from tests.support.fleet import private_file
from tests.support.peers import free_edge_port, wait_until

HOSTS = 3
SERVER_ID_LENGTH, NONCE_LENGTH, ROTATION = 2, 8, 3
VIRTUAL = "198.18.0.1"
PORT = 8443
FLEET_PORT = 4490
ORIGIN_PORT = 8000
CLIENT_SOURCES = [f"10.77.100.{n}" for n in range(2, 10)]
RESET_SECONDS = 12.0
"""Within which clients of a killed host learn of it: the timeout of peers, a move, and some."""


@dataclass
class Place:
    """Where a host runs, and what its clients and its peers reach it by."""

    prefix: list[str]
    listen: list[str]
    peer: str
    origin_port: int


class Host:
    """One `quicedge serve` and its origin."""

    def __init__(self, number: int, place: Place, directory: Path, fleet: str) -> None:
        self.server_id = f"0a{number:02x}"
        self.place = place
        self._directory = directory / f"host{number}"
        self._directory.mkdir()
        certificate = devcerts.ensure(self._directory / "certs")
        assert certificate.ca
        self._admin = AdminClient(f"unix:{self._directory}/admin.sock")
        self._config = self._directory / "quicedge.toml"
        self._config.write_text(
            f"""
listen = [{", ".join(place.listen)}]
protocols = ["h3"]
workers = 2
drain_timeout = "8s"
state_directory = "{self._directory}/state"
[tls]
certificates = [{{ cert = "certs/dev.pem", key = "certs/dev.key" }}]
[upstreams.app]
servers = ["http://127.0.0.1:{place.origin_port}"]
[[routes]]
upstream = "app"
[limits]
max_connections_per_address = 20000
max_connections_per_prefix = 20000
[admin]
listen = "unix:{self._directory}/admin.sock"
[fleet]
server_id = "{self.server_id}"
{fleet}
"""
        )
        self._log = (self._directory / "edge.out").open("ab")
        self._origin = self._spawn("bench.origin", str(place.origin_port))
        self._edge = self._start()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.place.prefix, sys.executable, "-m", *command],
            cwd=REPOSITORY, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _start(self) -> subprocess.Popen[bytes]:
        return self._spawn("quicedge", "serve", "--config", str(self._config))

    def status(self) -> dict[str, Any] | None:
        try:
            return dict(self._admin.get("/api/v1/status"))
        except AdminError:
            return None

    def peers_up(self) -> int:
        fleet = (self.status() or {}).get("fleet") or {"peers": []}
        return sum(peer["up"] and not peer["this_host"] for peer in fleet["peers"])

    def messages(self, outcome: str) -> int:
        status = self.status()
        workers = [item["stats"] for item in status["workers"]] if status else []
        return sum(stats["fleet_messages"][f"fleet_{outcome}"] for stats in workers if stats)

    def kill(self) -> None:
        """As a power cut does: all its processes at once."""
        status = self.status()
        pids = [worker["pid"] for worker in status["workers"]] if status else []
        for pid in [self._edge.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._edge.wait(10)

    def restart(self) -> None:
        """Start it anew after it was killed, or let it drain first."""
        if self._edge.poll() is None:
            self._edge.send_signal(signal.SIGTERM)
            self._edge.wait(30)
        self._edge = self._start()

    def upgrade(self) -> None:
        """As an operator does who has installed another version."""
        before = self.status() or {}
        done = subprocess.run(
            [*self.place.prefix, sys.executable, "-m", "quicedge", "upgrade", "--config",
             str(self._config)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + self.log()
        wait_until(
            lambda: (self.status() or before).get("pid") != before.get("pid"), "the new program"
        )

    def log(self) -> str:
        return (self._directory / "edge.out").read_text()

    def close(self) -> None:
        status = self.status()
        if status is not None and status["pid"] != self._edge.pid:
            # An upgraded edge is no child of ours.
            subprocess.run(
                [sys.executable, "-m", "quicedge", "stop", "--now", "--config", str(self._config)],
                cwd=REPOSITORY, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        for process in (self._edge, self._origin):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._edge.wait(15)
        for process in (self._edge, self._origin):
            if process.poll() is None:
                process.kill()
            process.wait()
        self._log.close()


class Scene(Protocol):
    """What stands before the hosts."""

    address: tuple[str, int]
    client_prefix: list[str]
    sources: list[str]
    places: list[Place]
    key: str
    """That encrypts server IDs, in hexadecimal digits; empty: they are in the clear."""

    def route(self, hosts: list[int]) -> None:
        """Send new flows to these hosts alone."""

    def mark_down(self, hosts: list[int]) -> None:
        """These fail their health checks, and all others do not."""


@dataclass
class Fleet:
    """Hosts behind a scene."""

    scene: Scene
    hosts: list[Host] = field(default_factory=list)

    def messages(self, outcome: str) -> int:
        return sum(host.messages(outcome) for host in self.hosts)

    def wait_for_peers(self) -> None:
        for host in self.hosts:
            wait_until(lambda host=host: host.peers_up() == len(self.hosts) - 1, "the peers")


@contextlib.contextmanager
def hosts_of(scene: Scene, directory: Path) -> Iterator[Fleet]:
    secret = private_file(directory / "fleet.secret", secrets.token_hex(32))
    peers = ", ".join(f'"{place.peer}"' for place in scene.places)
    text = f'secret_file = "{secret}"\npeers = [{peers}]'
    if scene.key:
        keys = private_file(directory / "quic-lb.keys", f"{ROTATION} {scene.key}\n")
        text += f'\nconnection_id_keys = "{keys}"'
    found = Fleet(scene)
    try:
        for number, place in enumerate(scene.places):
            found.hosts.append(Host(number, place, directory, text))
        found.wait_for_peers()
        yield found
    finally:
        for host in found.hosts:
            host.close()


# --- scenes -----------------------------------------------------------------------------------


class Ecmp:
    """A router in a network namespace, whose route to one address has the hosts as next hops."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        _, self._router, *hosts = names
        self.address = VIRTUAL, PORT
        self.key = ""
        self.sources = CLIENT_SOURCES
        self.client_prefix = _inside(names[0])
        self.places = [
            Place(
                _inside(name),
                [
                    f'"{VIRTUAL}:{PORT}"', f'"10.77.{number}.2:{FLEET_PORT}"',
                ],
                f"10.77.{number}.2:{FLEET_PORT}",
                ORIGIN_PORT,
            )
            for number, name in enumerate(hosts)
        ]  # fmt: skip

    def build(self) -> None:
        client, router, *hosts = self._names
        for name in self._names:
            run_ip("netns", "add", name)
            run_ip("-n", name, "link", "set", "lo", "up")
        _wire(client, router, "clients", "10.77.100", [*CLIENT_SOURCES])
        for number, name in enumerate(hosts):
            _wire(name, router, f"host{number}", f"10.77.{number}", [f"10.77.{number}.2"])
            run_ip("-n", name, "address", "add", f"{VIRTUAL}/32", "dev", "lo")
        for key in ("net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1"):
            subprocess.run([*_inside(router), "sysctl", "-qw", key], check=True)
        self.route(list(range(len(hosts))))

    def route(self, hosts: list[int]) -> None:
        hops: list[str] = []
        for number in hosts:
            hops += ["nexthop", "via", f"10.77.{number}.2", "weight", "1"]
        run_ip("-n", self._router, "route", "replace", VIRTUAL, *hops)

    def mark_down(self, hosts: list[int]) -> None:
        """A router knows only its route."""


def _inside(name: str) -> list[str]:
    return ["ip", "netns", "exec", name]


def _wire(name: str, router: str, side: str, network: str, addresses: list[str]) -> None:
    run_ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", side,
           "netns", router)  # fmt: skip
    run_ip("-n", router, "address", "add", f"{network}.1/24", "dev", side)
    run_ip("-n", router, "link", "set", side, "up")
    for address in addresses:
        run_ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    run_ip("-n", name, "link", "set", "eth0", "up")
    run_ip("-n", name, "route", "add", "default", "via", f"{network}.1")


@contextlib.contextmanager
def ecmp() -> Iterator[Ecmp]:
    """The namespaces; they are removed however it is left."""
    parts = ["clients", "router", *(f"host{number}" for number in range(HOSTS))]
    names = [f"qefleet-{os.getpid()}-{part}" for part in parts]
    scene = Ecmp(names)
    try:
        scene.build()
        yield scene
    finally:
        for name in names:
            with contextlib.suppress(TopologyError):
                run_ip("netns", "del", name)


class Balanced:
    """Hosts on loopback behind a NAT that routes by server ID if it reads them, and else by the
    address and port of a client."""

    def __init__(self, *, reads_ids: bool) -> None:
        self._reads_ids = reads_ids
        ports = [free_edge_port() for _ in range(HOSTS)]
        self.key = secrets.token_hex(16) if reads_ids else ""
        self._lb = QuicLb(ROTATION, SERVER_ID_LENGTH, NONCE_LENGTH, bytes.fromhex(self.key) or None)
        self._length = 1 + self._lb.block_length + 1
        self._by_id = {
            bytes((10, number)): ("127.0.0.1", port) for number, port in enumerate(ports)
        }
        self._hosts = list(self._by_id.values())
        self._used = list(range(HOSTS))
        self._down: set[tuple[str, int]] = set()
        self.client_prefix: list[str] = []
        self.sources = ["127.0.0.1"]
        self.places = [
            Place([], [f'"127.0.0.1:{port}"'], f"127.0.0.1:{port}", free_edge_port())
            for port in ports
        ]
        self.box: Balancer
        self.address: tuple[str, int]

    def choose(self, data: bytes, client: tuple[str, int]) -> tuple[str, int]:
        at, length = (6, data[5]) if data[0] & 0x80 else (1, self._length)
        cid = data[at : at + self._length]
        if self._reads_ids and length == self._length and cid[0] >> 5 == ROTATION:
            host = self._by_id.get(self._lb.decode(cid))
            if host is not None and host not in self._down:
                return host
        return self._hosts[self._used[hash(client) % len(self._used)]]

    def route(self, hosts: list[int]) -> None:
        self._used = hosts

    def mark_down(self, hosts: list[int]) -> None:
        self._down = {self._hosts[number] for number in hosts}


@contextlib.contextmanager
def balanced(*, reads_ids: bool = True) -> Iterator[Balanced]:
    scene = Balanced(reads_ids=reads_ids)
    with balancer(scene.choose) as box:
        scene.box = box
        scene.address = "127.0.0.1", box.port
        yield scene


# --- the run ----------------------------------------------------------------------------------


class Clients:
    """The load, in a process of its own where the clients are."""

    def __init__(self, scene: Scene, total: int, interval: float) -> None:
        host, port = scene.address
        self._process = subprocess.Popen(
            [
                *scene.client_prefix, sys.executable, "-m", "bench.fleetload", host, str(port),
                str(total), str(interval), scene.key or "-", *scene.sources,
            ],
            cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@dataclass
class Report:
    """What happened in one run."""

    clients: int
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str, value: Any) -> None:
        self.figures[name] = value
        print(f"{name:<34} {value}", flush=True)

    def expect(self, fine: bool, what: str) -> None:
        if not fine:
            self.wrong.append(what)
            print(f"WRONG: {what}", flush=True)


def run(fleet: Fleet, report: Report, seconds: float, interval: float, *, upgrades: bool) -> None:
    """All phases, each of so many seconds; with `upgrades` in place of restarts."""
    clients = Clients(fleet.scene, report.clients, interval)
    try:
        died = _phases(fleet, report, clients, seconds)
        _roll(fleet, report, clients, died, upgrades=upgrades)
    finally:
        clients.close()


def _phases(fleet: Fleet, report: Report, clients: Clients, seconds: float) -> dict[str, Any]:
    """Up to the death of a host; returns what is lost by then."""
    names = [host.server_id for host in fleet.hosts]
    everyone = list(range(len(names)))

    def phase(name: str) -> dict[str, Any]:
        time.sleep(seconds)
        state = clients.ask("state")
        report.note(name, json.dumps(state))
        return state

    def lost_nobody(name: str, state: dict[str, Any], but: str | None = None) -> None:
        lost = {host: count for host, count in state["lost"].items() if host != but}
        report.expect(not lost, f"{name}: connections lost: {lost}, {state['failed']}")

    wait_until(
        lambda: sum(clients.ask("state")["hosts"].values()) == report.clients, "the clients", 120
    )
    wait_until(
        lambda: clients.ask("state")["done"].get("moves", 0) > report.clients / 2, "moves", 120
    )
    state = phase("steady")
    lost_nobody("steady", state)
    report.expect(set(state["hosts"]) == set(names), "a host has no clients")

    # A host that is taken out keeps its clients, who reach it by way of the others.
    fleet.scene.route(everyone[:-1])
    fresh = clients.ask("fresh 12")
    report.note("new clients while one is drained", fresh)
    report.expect(set(fresh) <= set(names[:-1]), f"new clients while one is drained: {fresh}")
    drained = phase("one host drained")
    lost_nobody("one host drained", drained)
    report.expect(
        drained["hosts"].get(names[-1], 0) > 0, "the drained host has no clients left to keep"
    )
    report.note("datagrams forwarded", fleet.messages("forwarded"))
    report.note("answers relayed", fleet.messages("relayed"))
    fleet.scene.route(everyone)

    # A host that dies loses its own clients, who learn of it.
    victim = fleet.hosts[0]
    fleet.scene.route(everyone[1:])
    victim.kill()
    fleet.scene.mark_down([0])
    fresh = clients.ask("fresh 12")
    report.note("new clients after a host died", fresh)
    report.expect(set(fresh) <= set(names[1:]), f"new clients after a host died: {fresh}")
    wait_until(
        lambda: names[0] not in clients.ask("state")["hosts"], "clients of the dead host", 60
    )
    died = phase("one host killed")
    lost_nobody("one host killed", died, but=names[0])
    report.expect(died["lost"].get(names[0], 0) > 0, "nobody noticed the death of a host")
    report.note("slowest to learn", died["slowest_end"])
    report.expect(died["slowest_end"] < RESET_SECONDS, f"clients learn late: {died['slowest_end']}")
    victim.restart()
    fleet.wait_for_peers()
    fleet.scene.mark_down([])
    fleet.scene.route(everyone)

    return died


def _roll(
    fleet: Fleet, report: Report, clients: Clients, before: dict[str, Any], *, upgrades: bool
) -> None:
    """All hosts in turn: upgraded in place, or taken out and restarted, as pods are."""
    everyone = range(len(fleet.hosts))
    for number in everyone:
        if upgrades:
            fleet.hosts[number].upgrade()
        else:
            fleet.scene.route([other for other in everyone if other != number])
            fleet.hosts[number].restart()
        fleet.wait_for_peers()
        fleet.scene.route(list(everyone))
    state = clients.ask("stop")
    report.note("rolling upgrade" if upgrades else "rolling restart", json.dumps(state))
    lost = sum(state["lost"].values()) - sum(before["lost"].values())
    resets = state["failed"].get("stateless reset", 0) - before["failed"].get("stateless reset", 0)
    # A client that moves while its host says goodbye may miss it, and is reset when it next asks.
    tolerated = 0 if upgrades else max(2, report.clients / 20)
    report.expect(
        lost == resets <= tolerated,
        f"connections lost while hosts changed: {state['lost']}, {state['failed']}",
    )
    handshakes = [text for text in state["failed"] if text.startswith("handshake")]
    report.expect(not handshakes, f"handshakes failed: {handshakes}")
    for host in fleet.hosts:
        report.expect("Traceback" not in host.log(), "an exception in a host's log")


def soak_fleet(directory: Path, scene_name: str, clients: int, seconds: float) -> Report:
    """One run behind one scene."""
    report = Report(clients)
    scenes = {"ecmp": ecmp, "balancer": balanced, "nat": lambda: balanced(reads_ids=False)}
    place = directory / scene_name
    place.mkdir()
    with scenes[scene_name]() as scene, hosts_of(scene, place) as fleet:
        interval = max(0.5, clients / 100)
        # Pods are replaced; hosts are upgraded.
        run(fleet, report, seconds, interval, upgrades=scene_name != "nat")
        if scene_name == "balancer":
            forwarded = report.figures["datagrams forwarded"]
            report.expect(forwarded == 0, f"forwarded in spite of the balancer: {forwarded}")
    return report
