"""A listener of a host in a fleet, without a socket."""

from __future__ import annotations

import socket
from typing import Any, cast

from quicedge.udp.socket import FourTuple, UdpSocket


class FleetListener:
    """A UDP socket that keeps what is sent."""

    family: socket.AddressFamily = socket.AF_INET

    def __init__(self, host: str = "0.0.0.0", port: int = 443) -> None:
        self.address = host, port
        self.name = f"{host}:{port}"
        self.sent: list[tuple[bytes, FourTuple]] = []

    def path(self, remote: tuple[Any, ...], local: bytes) -> FourTuple:
        return FourTuple(remote, local, cast(UdpSocket, self))

    def send(self, datagrams: list[bytes], path: FourTuple, ecn: int = 0) -> None:
        self.sent += [(data, path) for data in datagrams]
