"""`python -m tests.support.flood PORT RATE SECONDS`: Initials of clients that never come back.

They come from 200 networks of loopback, so that no limit by address catches them.
"""

from __future__ import annotations

import itertools
import socket
import sys
import time

from tests.support.initials import crypto_frame, initial

NETWORKS = 200
DATAGRAMS = 1000
"""Made beforehand: making one costs more than receiving it."""
BURSTS = 100


def main(port: int, rate: int, seconds: float) -> None:
    datagrams = itertools.cycle([initial(crypto_frame(10, b"x")) for _ in range(DATAGRAMS)])
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(NETWORKS)]
    for number, sock in enumerate(sockets):
        sock.bind((f"127.{number + 2}.0.1", 0))
    sources = itertools.cycle(sockets)
    print("flooding", flush=True)
    start = time.monotonic()
    for burst in range(int(seconds * BURSTS)):
        for _ in range(rate // BURSTS):
            next(sources).sendto(next(datagrams), ("127.0.0.1", port))
        time.sleep(max(0.0, start + (burst + 1) / BURSTS - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
