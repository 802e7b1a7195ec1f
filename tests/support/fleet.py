"""Hosts of a fleet, all of them on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.edge import RunningEdge, edge
from tests.support.peers import free_edge_port, wait_until


def private_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@dataclass
class Fleet:
    """Running edges that share a secret and know each other."""

    hosts: list[RunningEdge]

    def peers_up(self, host: int) -> int:
        status = self.hosts[host].admin("/api/v1/status")["fleet"]
        return sum(peer["up"] and not peer["this_host"] for peer in status["peers"])

    def messages(self, host: int, outcome: str) -> int:
        workers = self.hosts[host].admin("/api/v1/status")["workers"]
        return sum(worker["stats"]["fleet_messages"][f"fleet_{outcome}"] for worker in workers)


@contextmanager
def fleet(
    directory: Path, origin: str, hosts: int = 2, *, keys: str = "", options: str = ""
) -> Iterator[Fleet]:
    """Edges on ports of their own; `keys` encrypt server IDs."""
    ports = [free_edge_port() for _ in range(hosts)]
    secret = private_file(directory / "fleet.secret", secrets.token_hex(32))
    lines = [f'secret_file = "{secret}"']
    lines.append("peers = [" + ", ".join(f'"127.0.0.1:{port}"' for port in ports) + "]")
    if keys:
        lines.append(f'connection_id_keys = "{private_file(directory / "quic-lb.keys", keys)}"')
    with ExitStack() as stack:
        running = []
        for number, port in enumerate(ports):
            place = directory / f"host{number}"
            place.mkdir()
            section = "\n".join(["[fleet]", f'server_id = "0a{number:02x}"', *lines])
            running.append(
                stack.enter_context(
                    edge(place, origin, extra=section, options=options, listen=(port,))
                )
            )
            running[-1].port = port
        found = Fleet(running)
        for number in range(hosts):
            wait_until(lambda n=number: found.peers_up(n) == hosts - 1, "the peers")
        yield found
