"""The edge as an operator runs it: a process with a configuration file."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quicedge.config import devcerts
from tests.support.peers import free_edge_port, free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class RunningEdge:
    """A `quicedge serve` that is ready."""

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    directory: Path
    certificate: devcerts.DevCertificate
    command: list[str]

    def start(self) -> None:
        """Start it again, after its process has ended."""
        self.process = _start(self.command, self.directory)
        wait_until(self.is_ready, "the edge")

    def admin(self, path: str) -> Any:
        """The JSON of an admin resource."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def is_ready(self) -> bool:
        try:
            self.admin("/readyz")
        except OSError:
            if self.process.poll() is not None:
                raise AssertionError(f"the edge ended:\n{self.log()}") from None
            return False
        except ValueError:
            return True
        return True

    def is_listening(self) -> bool:
        """Whether anybody answers at the address of the admin API."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.admin_port)) == 0

    def log(self) -> str:
        return (self.directory / "edge.out").read_text()

    def worker_pid(self) -> int:
        return int(self.admin("/api/v1/status")["workers"][0]["pid"])

    def access(self) -> list[dict[str, Any]]:
        """Access-log records so far."""
        path = self.directory / "access.log"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def get(
        self, url: str, *options: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """`quicedge get` of a path on this edge."""
        return subprocess.run(
            [
                sys.executable, "-m", "quicedge", "get", "--cacert", str(self.certificate.ca),
                *options, f"https://localhost:{self.port}{url}",
            ],
            capture_output=True, timeout=timeout, cwd=REPOSITORY, check=False,
        )  # fmt: skip


def _start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "edge.out").open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY,
            start_new_session=True,
        )  # fmt: skip


@contextmanager
def edge(
    directory: Path,
    upstream: str,
    extra: str = "",
    upstream_extra: str = "",
    hosts: str = "*",
    listen: tuple[int, ...] = (),
    program: tuple[str, ...] = ("-m", "quicedge"),
    options: str = "",
    log: str = "",
    tls: str = "",
    tracebacks: bool = False,
    ends_itself: bool = False,
    drain_timeout: str | None = "5s",
) -> Iterator[RunningEdge]:
    """Run the edge before an origin; asserts that it drains and exits 0 in the end.

    `upstream`: the URL of the origin; empty if `upstream_extra` names another kind. `tracebacks`:
    some are expected in the log. `ends_itself`: the process may have been replaced or ended by the
    test.
    """
    port, admin_port = free_edge_port(), free_port()
    certificate = devcerts.ensure(directory / "certs")
    config = directory / "quicedge.toml"
    addresses = [f"127.0.0.1:{port}", f"[::1]:{port}", *(f"127.0.0.1:{p}" for p in listen)]
    config.write_text(
        f"""
listen = {json.dumps(addresses)}
{"" if drain_timeout is None else f'drain_timeout = "{drain_timeout}"'}
control_socket = "control.sock"
{options}

[tls]
certificates = [{{ cert = "certs/dev.pem", key = "certs/dev.key" }}]
{tls}

[upstreams.app]
{f'servers = ["{upstream}"]' if upstream else ""}
{upstream_extra}

[[routes]]
host = "{hosts}"
upstream = "app"

[log]
format = "json"
access_file = "access.log"
{log}

[admin]
listen = "127.0.0.1:{admin_port}"
{extra}
"""
    )
    command = [sys.executable, *program, "serve", "--config", str(config)]
    (directory / "edge.out").write_bytes(b"")
    running = RunningEdge(
        _start(command, directory), port, admin_port, directory, certificate, command
    )
    try:
        wait_until(running.is_ready, "the edge")
        yield running
        if not ends_itself:
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(15) == 0, running.log()
    finally:
        # Workers of a supervisor that is killed would serve on: ask, and ask not to wait.
        for _ in range(2):
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(5)
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
    if not tracebacks:
        assert "Traceback" not in running.log(), running.log()
