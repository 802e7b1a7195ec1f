"""The TCP connection beside the QUIC one: one side sends under CUBIC for ever, one discards.

`python -m interop.runner.bulk_tcp receive ADDRESS` / `send SOURCE ADDRESS`.
"""

from __future__ import annotations

import socket
import sys
import time

PORT = 5001
CHUNK = bytes(64 << 10)
CONNECT_TIMEOUT = 10.0
RETRY = 0.1


def receive(address: str) -> None:
    with socket.create_server((address, PORT)) as listener:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(len(CHUNK)):
                pass


def send(source: str, address: str) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            sock = socket.create_connection((address, PORT), CONNECT_TIMEOUT, (source, 0))
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY)
    with sock:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        while True:
            sock.sendall(CHUNK)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], sys.argv[3])
