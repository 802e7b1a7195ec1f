"""Wait until a server answers an unknown version, as the simulator does before it starts.

`python -m interop.runner.probe HOST PORT SECONDS` exits 0 at the first Version Negotiation, and 1
with a reason when none came or the answer was something else.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

# Long header, version "WAIT", both connection IDs of length zero, 1207 bytes in all.
PROBE = bytes([0xC0]) + b"WAIT" + bytes(2) + bytes(1200)
INTERVAL = 0.1


def wait_for_server(
    host: str, port: int, seconds: float, gone: Callable[[], bool] = lambda: False
) -> str | None:
    """None once the server has answered, or why it did not; `gone` says that it never will."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    deadline = time.monotonic() + seconds
    with socket.socket(family, kind, protocol) as sock:
        sock.connect(address)
        sock.settimeout(INTERVAL)
        while time.monotonic() < deadline:
            if gone():
                return "the server exited at once"
            try:
                sock.send(PROBE)
                answer = sock.recv(65535)
            except TimeoutError:
                continue
            except OSError:
                time.sleep(INTERVAL)  # refused: the server does not listen yet
                continue
            if len(answer) >= 5 and answer[1:5] == bytes(4):
                return None
            return f"the server answered an unknown version with {answer[:16].hex()}"
    return f"no Version Negotiation for an unknown version within {seconds:g} s"


if __name__ == "__main__":
    reason = wait_for_server(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    if reason:
        sys.exit(reason)
