"""Options of listening sockets that accepted connections inherit."""

from __future__ import annotations

import socket
import sys

import pytest

from quicedge.config import limits
from quicedge.tcp.sockets import open_listening_socket


@pytest.mark.skipif(sys.platform != "linux", reason="options are inherited on Linux")
def test_the_kernel_finds_out_that_a_silent_client_is_gone() -> None:
    with open_listening_socket(socket.AF_INET, "127.0.0.1", 0) as listening:
        listening.settimeout(10)
        with socket.create_connection(listening.getsockname(), timeout=10) as client:
            client.sendall(b"hello")  # it is accepted when it has spoken
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                for name, value in (
                    ("TCP_KEEPIDLE", limits.TCP_KEEPALIVE_IDLE),
                    ("TCP_KEEPINTVL", limits.TCP_KEEPALIVE_INTERVAL),
                    ("TCP_KEEPCNT", limits.TCP_KEEPALIVE_PROBES),
                ):
                    option = getattr(socket, name)
                    assert accepted.getsockopt(socket.IPPROTO_TCP, option) == value
