"""A worker process: `python -m quicedge.worker CONTROL_FD [MODULE:FUNCTION]`.

Started only by the supervisor. The function, by default `quicedge.worker.main:run`, takes the
`WorkerSpec` and returns when the worker has drained, or raises StartError, whose message is
reported to the supervisor.
"""

from __future__ import annotations

import importlib
import signal
import sys

import quicedge.plain_structlog  # noqa: F401  before all others
from quicedge.worker.control import ControlError, StartError, read_spec, report_failure
from quicedge.worker.privileges import PrivilegeError, drop_privileges

DEFAULT_ENTRY = "quicedge.worker.main:run"


def main(arguments: list[str]) -> int:
    # A terminal and systemd signal every process of the group, but only the supervisor controls
    # workers; if it dies, the control channel closes.
    for number in (
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    ):  # fmt: skip
        signal.signal(number, signal.SIG_IGN)
    control_fd = int(arguments[0])
    module, _, function = (arguments[1] if len(arguments) > 1 else DEFAULT_ENTRY).partition(":")
    entry = getattr(importlib.import_module(module), function)
    try:
        spec = read_spec(control_fd)
        drop_privileges(spec.identity)
        entry(spec)
    except ControlError as error:
        print(f"quicedge worker: {error}", file=sys.stderr)
        return 1
    except (PrivilegeError, StartError) as error:
        report_failure(control_fd, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
