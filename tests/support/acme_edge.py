"""An edge that orders its certificates, and what its clients see."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.peers import free_edge_port, wait_until
from tests.support.supervised import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ports:
    """Where an edge is reached."""

    https: int
    http: int
    admin: int

    @staticmethod
    def free() -> Ports:
        return Ports(free_edge_port(), free_edge_port(), free_edge_port())


@dataclass
class AcmeEdge:
    process: subprocess.Popen[bytes]
    ports: Ports
    folder: Path
    address: str = "127.0.0.1"

    def log(self) -> str:
        return (self.folder / "edge.out").read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def wait_event(self, name: str, count: int = 1, timeout: float = 60) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            assert self.process.poll() is None, self.log()
            return self.events(name)[count - 1 :]

        return wait_for(found, f"{count} x {name!r} in\n{self.log()}", timeout)[0]

    def quicedge(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run a command of `quicedge` for this edge."""
        return subprocess.run(
            [sys.executable, "-m", "quicedge", *arguments],
            capture_output=True, cwd=REPOSITORY, timeout=timeout, check=False,
        )  # fmt: skip

    @property
    def config(self) -> str:
        return str(self.folder / "quicedge.toml")

    def status(self) -> dict[str, Any]:
        done = self.quicedge("status", "--config", self.config, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def host(self, name: str) -> dict[str, Any]:
        """The state of one name."""
        return next(one for one in self.status()["acme"]["hosts"] if one["host"] == name)

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        url = f"http://127.0.0.1:{self.ports.admin}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def renew(self, *hosts: str) -> None:
        done = self.quicedge("certs", "renew", "--config", self.config, *hosts)
        assert done.returncode == 0, done.stderr

    # --- what clients see -------------------------------------------------------------------------

    def connect(self, host: str | None, alpn: str = "http/1.1") -> ssl.SSLSocket:
        """TLS on TCP, unverified; raises OSError."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        sock = socket.create_connection((self.address, self.ports.https), timeout=20)
        return context.wrap_socket(sock, server_hostname=host)

    def serial(self, host: str) -> int:
        """Of the certificate on TCP."""
        with self.connect(host) as tls:
            der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    def fetch(self, host: str, root: Path) -> subprocess.CompletedProcess[bytes]:
        """Over QUIC, with the certificate verified."""
        return self.quicedge(
            "get", "--cacert", str(root), "--resolve",
            f"{host}:{self.ports.https}:{self.address}", f"https://{host}:{self.ports.https}/",
        )  # fmt: skip


def refusal(edge: AcmeEdge, host: str | None) -> str:
    """The alert that a client on TCP gets; empty if it gets a certificate."""
    try:
        edge.connect(host).close()
    except ssl.SSLError as error:
        return error.reason or ""
    return ""


@contextmanager
def acme_edge(
    folder: Path,
    ports: Ports,
    acme: str,
    *hosts: str,
    workers: int = 1,
    address: str = "127.0.0.1",
    options: str = "",
    tls: str = "",
    ready: bool = True,
) -> Iterator[AcmeEdge]:
    """An edge for these hosts, before static files; it must drain and exit 0 in the end."""
    folder.mkdir(exist_ok=True)
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "index.html").write_text("hello\n")
    state = folder / "state"
    routes = "".join(f'[[routes]]\nhost = "{host}"\nupstream = "files"\n' for host in hosts)
    state_line = "" if "state_directory" in options else f'state_directory = "{state}"'
    (folder / "quicedge.toml").write_text(
        f"""
listen = ["{address}:{ports.https}"]
redirect_http = ["{address}:{ports.http}"]
workers = {workers}
drain_timeout = "5s"
{state_line}
{options}

{acme}
{tls}

[upstreams.files]
root = "{site}"

{routes}

[log]
format = "json"

[admin]
listen = "127.0.0.1:{ports.admin}"
"""
    )
    with (folder / "edge.out").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "quicedge", "serve", "--config", str(folder / "quicedge.toml")],
            stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY, start_new_session=True,
        )  # fmt: skip
    running = AcmeEdge(process, ports, folder, address)
    starts = len(running.events("ready"))

    def is_ready() -> bool:
        assert process.poll() is None, running.log()
        return len(running.events("ready")) > starts

    try:
        if ready:
            wait_until(is_ready, "the edge")
        yield running
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, running.log()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in running.log(), running.log()
