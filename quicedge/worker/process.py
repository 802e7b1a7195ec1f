"""What a process does to become a worker, whether it was forked or is a fresh interpreter.

The entry (`MODULE:FUNCTION`, by default `quicedge.worker.main:run`) takes the `WorkerSpec` and
returns when the worker has drained, or raises StartError, whose message is reported to the
supervisor.
"""

from __future__ import annotations

import importlib
import signal
import sys

from quicedge.worker.control import ControlError, StartError, read_spec, report_failure
from quicedge.worker.privileges import PrivilegeError, drop_privileges

DEFAULT_ENTRY = "quicedge.worker.main:run"


def ignore_signals() -> None:
    """Leave signals to the supervisor.

    A terminal and systemd signal every process of the group, but only the supervisor controls
    workers; if it dies, the control channel closes.
    """
    for number in (
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    ):  # fmt: skip
        signal.signal(number, signal.SIG_IGN)


def run_worker(control_fd: int, entry: str) -> int:
    """Read the specification, drop privileges and run to the end; returns the exit code."""
    ignore_signals()
    module, _, function = entry.partition(":")
    run = getattr(importlib.import_module(module), function)
    try:
        spec = read_spec(control_fd)
        drop_privileges(spec.identity)
        run(spec)
    except ControlError as error:
        print(f"quicedge worker: {error}", file=sys.stderr)
        return 1
    except (PrivilegeError, StartError) as error:
        report_failure(control_fd, str(error))
        return 1
    return 0
