"""Memory that a server holds for spoofed Initials: `python -m bench.spoofed [N]`.

Two kinds: the first kilobyte of a long ClientHello, and one byte of CRYPTO data at offset 500 000.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.floods import hello_begun
from quicedge.config import devcerts
from tests.support.edge import REPOSITORY, edge
from tests.support.initials import crypto_frame, initial
from tests.support.peers import free_port

RATE = 300
"""Initials per second: slow enough that none is lost."""

KINDS: dict[str, Callable[[], bytes]] = {
    "a hello begun": hello_begun,
    "CRYPTO at 500 000": lambda: crypto_frame(500_000, b"x"),
}


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no memory told of {pid}")


def flood(port: int, count: int, frames: Callable[[], bytes]) -> None:
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.{number % 200 + 2}.{number // 200 + 1}.1", 0))
            sock.sendto(initial(frames()), ("127.0.0.1", port))
        time.sleep(1 / RATE)
    time.sleep(1)


@contextmanager
def stock(directory: Path) -> Iterator[tuple[int, int]]:
    """Port and process of stock aioquic."""
    port = free_port(socket.SOCK_DGRAM)
    files = devcerts.ensure(directory / "certs")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.stock_server",
            str(port),
            str(files.cert),
            str(files.key),
        ],
        cwd=REPOSITORY,
    )
    try:
        time.sleep(2)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def quicedge(directory: Path, options: str) -> Iterator[tuple[int, int]]:
    with edge(directory, "http://127.0.0.1:9", extra=options) as running:
        yield running.port, running.worker_pid()


def main(count: int) -> None:
    servers = {
        "stock aioquic": stock,
        "quicedge, Retry off": lambda directory: quicedge(
            directory,
            f'[quic]\nretry = "off"\nmax_half_open = {count}\n'
            f"[limits]\nmax_half_open_per_prefix = {count}",
        ),
        "quicedge": lambda directory: quicedge(directory, ""),
    }
    for name, server in servers.items():
        for kind, frames in KINDS.items():
            with tempfile.TemporaryDirectory() as directory, server(Path(directory)) as (port, pid):
                flood(port, 20, frames)  # what is loaded once is not counted
                before = resident(pid)
                flood(port, count, frames)
                held = resident(pid) - before
            print(
                f"{name:<22} {kind:<20} {held / 1e6:8.1f} MB, {held / count / 1024:7.1f} KB each",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
