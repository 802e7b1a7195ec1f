"""One endpoint under test as a process: started, awaited, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Between SIGTERM and SIGKILL; the runner gives ten seconds, but nothing may depend on them.
GRACE = 1.0
KILL_WAIT = 10.0
POLL = 0.01
UNSUPPORTED = 127

_ENCLOSURE = Path(__file__).with_name("enclosure.sh")


class Endpoint:
    """A running endpoint. Its output goes to `directory/output.txt`."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        directory: Path,
        namespace: str | None,
    ) -> None:
        """Start `command`; in `namespace`, also as process 1 of a PID namespace.

        As in a container, SIGTERM then reaches the first process alone, and SIGKILL everything.
        """
        self._output: IO[bytes] = (directory / "output.txt").open("ab")
        self._enclosed = namespace is not None
        words = list(command)
        if namespace is not None:
            words = [
                *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", str(_ENCLOSURE), str(directory), *command),
            ]
        self._process = subprocess.Popen(
            words,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def _first(self) -> int | None:
        """The process that a container would have as number 1."""
        if not self._enclosed:
            return self._process.pid
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def stop(self) -> None:
        """SIGTERM, a short grace, SIGKILL; returns when nothing of it is left."""
        if self._process.poll() is None:
            first = self._first()
            if first is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(first, signal.SIGTERM)
                wait_any([self], GRACE)
            if self._process.poll() is None and first is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(KILL_WAIT)
        self._output.close()


def wait_any(endpoints: Sequence[Endpoint], seconds: float) -> Endpoint | None:
    """The first of `endpoints` to exit within `seconds`, or None."""
    deadline = time.monotonic() + seconds
    while True:
        for endpoint in endpoints:
            if endpoint.returncode is not None:
                return endpoint
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL)
