"""An edge in a process of its own, which ends with the verification."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from quicedge.migrate.verify.client import unverifying_context
from quicedge.migrate.verify.limits import START_TIMEOUT, STOP_TIMEOUT

_LINES = 12
"""Lines of what an edge has written that are shown when it does not start."""


class EdgeError(Exception):
    """An edge does not start or does not answer; the message is for people."""


class EdgeProcess:
    """Runs a program in a process group of its own, from entering the context to leaving it."""

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, is_ready: Callable[[], bool]
    ) -> None:
        self.name = name
        self._command = command
        self._output = directory / f"{name}.out"
        self._is_ready = is_ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EdgeProcess:
        with self._output.open("wb") as output:
            # A session of its own: Ctrl-C is for us, who end it in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait_until_ready(self) -> None:
        """Raises EdgeError if it ends or takes too long."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if (code := self._process.poll()) is not None:
                raise EdgeError(f"{self.name} does not start (exit code {code}):\n{self.output}")
            if time.monotonic() > deadline:
                raise EdgeError(f"{self.name} does not answer:\n{self.output}")
            time.sleep(0.02)

    @property
    def output(self) -> str:
        """The end of what it has written."""
        lines = self._output.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LINES:])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # What it has started and left behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def accepts(port: int, *, tls: bool) -> bool:
    """Whether something answers on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as raw:
            if tls:
                unverifying_context().wrap_socket(raw).close()
    except (ConnectionError, TimeoutError):
        return False
    except ssl.SSLError:
        return True  # It refuses a client without server name, but it answers.
    return True
