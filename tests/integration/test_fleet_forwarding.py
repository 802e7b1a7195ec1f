"""Two hosts behind a balancer that knows no connection IDs: each forwards what the other owns."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path

from tests.support.balancer import balancer
from tests.support.edge import REPOSITORY
from tests.support.fleet import Fleet, fleet
from tests.support.origin import demo_origin
from tests.support.peers import wait_until

KEYS = "3 8f95f09245765f80256934e50c66207f\n"
SIZE = 3_000_000


def get(running: Fleet, port: int, path: str) -> bytes:
    """`quicedge get` of a path through the balancer."""
    done = subprocess.run(
        [
            sys.executable, "-m", "quicedge", "get", "--insecure", f"https://localhost:{port}{path}",
        ],
        capture_output=True, timeout=60, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


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
            body = get(running, box.port, f"/download?size={SIZE}")
            assert len(body) == SIZE
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
