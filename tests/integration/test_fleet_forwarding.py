"""Two hosts behind a balancer that knows no connection IDs: each forwards what the other owns."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from quicedge.telemetry.outcomes import FleetMessages
from tests.support.balancer import balancer
from tests.support.edge import REPOSITORY, RunningEdge
from tests.support.fleet import fleet
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

KEYS = "3 8f95f09245765f80256934e50c66207f\n"
SIZE = 3_000_000


def getting(port: int, path: str) -> subprocess.Popen[bytes]:
    """`quicedge get` of a path through the balancer."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "quicedge", "get", "--insecure", f"https://localhost:{port}{path}",
        ],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def got(client: subprocess.Popen[bytes]) -> bytes:
    body, errors = client.communicate(timeout=90)
    assert client.returncode == 0, errors.decode()
    return body


def reload(host: RunningEdge) -> None:
    before = host.admin("/api/v1/status")["reloads"]
    host.process.send_signal(signal.SIGHUP)
    wait_until(lambda: host.admin("/api/v1/status")["reloads"] == before + 1, "the reload")


def test_a_download_survives_a_balancer_that_changes_its_mind(tmp_path: Path) -> None:
    """NAT: the owner answers through the host that the client's datagrams arrive at."""
    with (
        demo_origin() as origin,
        fleet(tmp_path, origin, keys=KEYS, options="workers = 2") as running,
    ):
        ports = [host.port for host in running.hosts]
        numbers = count()
        with balancer(
            lambda data, client: ("127.0.0.1", ports[next(numbers) // 40 % len(ports)])
        ) as box:
            assert len(got(getting(box.port, f"/download?size={SIZE}"))) == SIZE
            assert box.moves >= 2
        wait_until(lambda: any(host.access() for host in running.hosts), "the access record")
        owner = 0 if running.hosts[0].access() else 1
        assert [record["outcome"] for record in running.hosts[owner].access()] == ["complete"]
        other = 1 - owner
        assert running.messages(other, "forwarded") > 0
        assert running.messages(owner, "received") == running.messages(other, "forwarded")
        assert running.messages(owner, "relayed") > 0
        assert running.messages(other, "relays_sent") > 0
        assert running.messages(owner, "refused") == running.messages(other, "refused") == 0
        for host in running.hosts:
            # The kernel finds the worker, for datagrams of clients and for messages alike.
            status = host.admin("/api/v1/status")
            assert all(listener["steering"] for listener in status["listeners"])
            forwarded = [worker["stats"]["datagrams_forwarded"] for worker in status["workers"]]
            assert forwarded == [0, 0]
            for worker in status["workers"]:
                assert set(worker["stats"]["fleet_messages"]) == set(FleetMessages)


def resets(host: RunningEdge) -> int:
    workers = host.admin("/api/v1/status")["workers"]
    return sum(worker["stats"]["stateless_resets_sent"] for worker in workers)


def test_keys_are_rotated_by_reloads_without_losing_a_connection(tmp_path: Path) -> None:
    """Hosts change one after the other, while clients reach the wrong one all the time."""
    size = 12_000_000
    new = "5 aaf09245765f80256934e50c66207f8f\n"
    with demo_origin() as origin, fleet(tmp_path, origin, keys=KEYS) as running:
        ports = [host.port for host in running.hosts]
        keys = tmp_path / "quic-lb.keys"
        numbers = count()
        with balancer(
            lambda data, client: ("127.0.0.1", ports[next(numbers) // 25 % len(ports)])
        ) as box:
            clients = [getting(box.port, f"/download?size={size}") for _ in range(2)]
            wait_until(lambda: next(numbers) > 200, "the downloads")
            for text in (KEYS + new, new + KEYS):
                keys.write_text(text)
                for host in running.hosts:
                    reload(host)
            assert [resets(host) for host in running.hosts] == [0, 0]
            # What is still on its way under the old key may be lost now, but no connection.
            keys.write_text(new)
            for host in running.hosts:
                reload(host)
            assert all(client.poll() is None for client in clients), "they outlast the change"
            assert [len(got(client)) for client in clients] == [size, size]
            assert len(got(getting(box.port, "/download?size=1000"))) == 1000
        assert [running.messages(host, "refused") for host in range(2)] == [0, 0]


def test_a_reload_that_would_lose_connections_is_refused(tmp_path: Path) -> None:
    with demo_origin() as origin, fleet(tmp_path, origin) as running:
        host = running.hosts[0]
        config = host.directory / "quicedge.toml"
        good = config.read_text()
        for bad, key in (
            (good.replace('server_id = "0a00"', 'server_id = "0a09"'), "fleet.server_id"),
            (good.replace('"0a00"', '"0a00"\nnonce_length = 9'), "fleet.nonce_length"),
        ):
            config.write_text(bad)
            host.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda key=key: (
                    f"{key}: requires a restart"
                    in str(host.admin("/api/v1/status")["last_reload_error"])
                ),
                "the refusal",
            )
        config.write_text(good)
        reload(host)
