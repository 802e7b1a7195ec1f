"""A supervisor in a process of its own, over fake workers, and the ways to talk to it.

Run as a program it is that process: the configuration comes as JSON, its path as an argument.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.support.peers import free_edge_port, free_port

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def wait_for(question: Callable[[], T | None], what: str, timeout: float = 20.0) -> T:
    """The first true answer; asserts that one comes in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s: {what}")


def write_config(edge_config: dict, path: Path, **changes) -> None:
    """The running configuration as TOML, with changes to single keys."""
    config = {**edge_config, **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()
             if not isinstance(value, dict) and key != "certificates"]  # fmt: skip
    for table, values in config.items():
        if isinstance(values, dict):
            lines.append(f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for cert, key in config.get("certificates", []):
        lines += ["[[tls.certificates]]", f'cert = "{cert}"', f'key = "{key}"']
    lines += ["[upstreams.app]", 'servers = ["http://127.0.0.1:9"]']
    lines += ["[[routes]]", 'upstream = "app"']
    path.write_text("\n".join(lines) + "\n")


def steered(slot: int, command: bytes) -> bytes:
    """A datagram that looks like a short header packet to a connection of the worker in `slot`:
    the kernel steers it there, or, where no such worker is, to those of the active bank in turn.
    Shorter ones than any packet go to the first."""
    return (bytes((0x40, slot % 256)) + b"stee" + bytes((slot % 256,)) + command).ljust(20)


class Steered:
    """A socket that talks to one worker."""

    def __init__(self, sock: socket.socket, slot: int) -> None:
        self._sock = sock
        self._slot = slot

    def send(self, command: bytes) -> None:
        self._sock.send(steered(self._slot, command))

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)

    def settimeout(self, seconds: float) -> None:
        self._sock.settimeout(seconds)


class Supervised:
    """A running supervisor."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        config_path: Path | None = None,
        *,
        token: Path | None = None,
        **env: str,
    ) -> None:
        self._token = token
        self._turn = itertools.count()
        self.port = free_edge_port()
        self.admin_port = free_port()
        self.log = folder / "edge.log"
        self.config = {
            "listen": [f"127.0.0.1:{self.port}"],
            "admin": {
                "listen": f"127.0.0.1:{self.admin_port}",
                **({"token_file": str(token)} if token is not None else {}),
            },
            "log": {"format": "json", "file": str(self.log)},
            "control_socket": str(folder / "control.sock"),
            **config,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.supervised", json.dumps(self.config)]
            + ([str(config_path)] if config_path else []),
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A test may signal the whole group, as a terminal does.
            start_new_session=True,
        )

    def get(self, path: str) -> tuple[int, Any]:
        """Ask the admin API; status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            token = self._token.read_text() if self._token is not None else ""
            headers = {"authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except OSError:
            return 0, None
        finally:
            connection.close()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(body) if is_json else body.decode()

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended: {self.process.returncode}\n{self.log_text()}")
            return self.get("/readyz")[0] == 200

        wait_for(ready, "ready")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        return self.process.wait(timeout)

    def said(self) -> str:
        """What it has written to standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_text().splitlines()]
        return [line for line in lines if line.get("event") == name]

    def wait_event(self, name: str, count: int = 1) -> dict[str, Any]:
        return wait_for(
            lambda: self.events(name)[count - 1 :], f"{count} x {name!r} in\n{self.log_text()}"
        )[0]

    # --- the workers ------------------------------------------------------------------------

    def tell(self, command: str) -> bytes | None:
        """Send a command from a new port, to the workers in turn; the answer, None when there is
        none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1.0)
            sock.connect(("127.0.0.1", self.port))
            try:
                sock.send(steered(next(self._turn), command.encode()))
                return sock.recv(4096)
            except OSError:
                return None

    def who(self) -> dict[str, Any] | None:
        answer = self.tell("who")
        return json.loads(answer) if answer else None

    @contextlib.contextmanager
    def talking_to(self, slot: int) -> Iterator[Steered]:
        """A socket whose datagrams reach the worker in `slot`."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5.0)
            sock.connect(("127.0.0.1", self.port))
            talking = Steered(sock, slot)
            talking.send(b"who")
            assert json.loads(talking.recv(4096))["slot"] == slot
            yield talking

    def who_is(self, slot: int) -> dict[str, Any]:
        """What the worker in `slot` says of itself."""
        with self.talking_to(slot) as talking:
            talking.send(b"who")
            return json.loads(talking.recv(4096))

    def workers(self) -> list[dict[str, Any]]:
        return self.get("/api/v1/status")[1]["workers"]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        sys.stderr.write(self.process.stderr.read())
        self.process.stderr.close()


def _main(arguments: list[str]) -> int:
    import msgspec

    from quicedge.config.schema import Config
    from quicedge.supervisor import run

    config = msgspec.json.decode(arguments[0], type=Config)
    path = arguments[1] if len(arguments) > 1 else None
    return run(config, path, worker_entry="tests.support.fake_worker:run")


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
