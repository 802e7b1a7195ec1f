"""What a measurement runs in: certificates, an origin, and servers that answer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import loads
from bench.proxies import ROOT, Kind, Proxy, Setting, pinned, running
from quicedge.config import devcerts

START_TIMEOUT = 20
"""Seconds until a server must answer."""


@contextlib.contextmanager
def setting() -> Iterator[Setting]:
    """A temporary directory with certificates, and a running origin."""
    with tempfile.TemporaryDirectory() as name, origin() as origin_port:
        directory = Path(name)
        files = devcerts.ensure(directory / "certs")
        yield Setting(directory, origin_port, files.cert, files.key, files.ca)


@contextlib.contextmanager
def origin() -> Iterator[int]:
    """The origin, on the load's core; yields its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    process = subprocess.Popen(
        pinned([sys.executable, "-m", "bench.origin", str(port)], loads.LOAD_CORE), cwd=ROOT
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise loads.WrongAnswer("the origin does not start") from None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serving(kind: Kind, setting: Setting) -> Iterator[Proxy]:
    """A server that answers requests."""
    with running(kind, setting) as proxy:
        _wait_until_ready(kind, proxy, setting)
        yield proxy


def _wait_until_ready(kind: Kind, proxy: Proxy, setting: Setting) -> None:
    """Wait until a server answers a request correctly; raises WrongAnswer if it never does."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            loads.go(proxy, "requests", kind.protocols[0], connections=1, streams=1, total=1)
            return
        except loads.WrongAnswer as error:
            if time.monotonic() > deadline or proxy.process.poll() is not None:
                log = (setting.directory / f"{proxy.name}.log").read_text()
                raise loads.WrongAnswer(
                    f"{kind.label} does not answer ({error}):\n{log[-2000:]}"
                ) from None
            time.sleep(0.1)
