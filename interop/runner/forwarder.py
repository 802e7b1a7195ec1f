"""The router: moves packets between its two interfaces over the emulated link, and captures both.

Runs inside the router's namespace: `python -m interop.runner.forwarder SCENARIO LEFT.pcap
RIGHT.pcap`. It prints one line when the link is up, and stops at the end of its input.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

from interop.runner import addresses
from interop.runner.faults import Direction
from interop.runner.link import Link
from interop.runner.packet import Packet
from interop.runner.pcap import PcapWriter
from interop.runner.scenario import parse_scenario

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_TIMESTAMPNS = 35
RECEIVE_BUFFER = 8 << 20
NICENESS = -10


class _Port:
    """One interface: raw frames in with the kernel's receive time, frames out, all captured."""

    def __init__(
        self, interface: str, own_mac: bytes, peer_mac: bytes, own: tuple[str, str], pcap: Path
    ) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((interface, 0))
        self.socket.setblocking(False)
        self._own_mac = own_mac
        self._header = peer_mac + own_mac
        self._own = set(own)
        self._pcap = PcapWriter(pcap)

    def receive(self) -> tuple[float, Packet] | None:
        """The next packet to be forwarded, or None when the socket is empty."""
        while True:
            try:
                frame, ancillary, _, address = self.socket.recvmsg(65535, 64)
            except BlockingIOError:
                return None
            if address[2] == PACKET_OUTGOING or frame[:6] != self._own_mac:
                continue
            try:
                packet = Packet(frame)
            except ValueError:
                continue
            if str(packet.destination) in self._own:
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            now = seconds + nanoseconds * 1e-9
            self._pcap.write(now, packet.data)
            return now, packet

    def send(self, packet: Packet) -> None:
        packet.data[:12] = self._header
        try:
            self.socket.send(packet.data)
        except OSError:
            return
        self._pcap.write(time.time(), packet.data)

    def close(self) -> None:
        self._pcap.close()
        self.socket.close()


def forward(link: Link, left: _Port, right: _Port, until: int) -> None:
    """Serve the link until file descriptor `until` is readable (its other end was closed)."""
    began = time.time()
    ports: dict[Direction, tuple[_Port, _Port]] = {
        "to_server": (left, right),
        "to_client": (right, left),
    }
    watched: list[socket.socket | int] = [left.socket, right.socket, until]
    while True:
        upcoming = link.next_arrival()
        timeout = None if upcoming is None else max(0.0, began + upcoming - time.time())
        readable, _, _ = select.select(watched, [], [], timeout)
        if until in readable:
            return
        for direction, (source, _) in ports.items():
            if source.socket in readable:
                while (received := source.receive()) is not None:
                    link.send(received[1], direction, received[0] - began)
        for direction, packet in link.due(time.time() - began):
            ports[direction][1].send(packet)


def main() -> None:
    scenario, left_pcap, right_pcap = sys.argv[1:]
    with contextlib.suppress(PermissionError):  # in a user's own namespace
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    left = _Port(
        addresses.LEFT_INTERFACE,
        addresses.LEFT_MAC,
        addresses.CLIENT_MAC,
        (addresses.ROUTER_LEFT_V4, addresses.ROUTER_LEFT_V6),
        Path(left_pcap),
    )
    right = _Port(
        addresses.RIGHT_INTERFACE,
        addresses.RIGHT_MAC,
        addresses.SERVER_MAC,
        (addresses.ROUTER_RIGHT_V4, addresses.ROUTER_RIGHT_V6),
        Path(right_pcap),
    )
    print("link up", flush=True)
    try:
        forward(Link(parse_scenario(scenario)), left, right, sys.stdin.fileno())
    finally:
        left.close()
        right.close()


if __name__ == "__main__":
    main()
