"""A worker as a fresh interpreter: `python -m quicedge.worker CONTROL_FD MODULE:FUNCTION`.

Started only by the supervisor, where it cannot fork (`supervisor/spawning.py`).
"""

from __future__ import annotations

import sys

from quicedge.worker.process import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(int(sys.argv[1]), sys.argv[2]))
