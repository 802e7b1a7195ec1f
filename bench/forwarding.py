"""What forwarding between hosts costs: `python -m bench.forwarding`.

CPU time per datagram on loopback, system calls included: to decode a server ID, to forward, to take
what another host forwarded, and to send an answer back through it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from quicedge.udp import kernel
from quicedge.udp.connection_id_layout import QuicLbLayout
from quicedge.udp.fleet import FleetForwarder
from quicedge.udp.fleet_messages import ROUTING_FIRST, FleetSealer, Forward, Kind
from quicedge.udp.quic_lb import QuicLb, ServerIds
from quicedge.udp.socket import FourTuple, UdpSocket, open_socket

COUNT = 20_000
SECRET = b"s" * 32
CLIENT = ("127.0.0.1", 9)
ENCODINGS = {
    "in the clear": QuicLb(0, 2, 8),
    "four passes": QuicLb(0, 2, 8, b"k" * 16),
    "one pass": QuicLb(0, 8, 8, b"k" * 16),
}


class _Host:
    def __init__(self, lb: QuicLb, number: int) -> None:
        self.server_id = number.to_bytes(lb.server_id_length, "big")
        self.socket = UdpSocket(open_socket(2, "127.0.0.1", 0))  # type: ignore[arg-type]
        self.ids = ServerIds(1 + lb.block_length + 1, [lb])
        self.forwarder = FleetForwarder(
            self.server_id, self.ids, SECRET, instance=self.server_id, sockets=[self.socket]
        )
        self.path = self.socket.path(CLIENT, kernel.pktinfo("127.0.0.1"))


def microseconds(work: Callable[[int], object]) -> float:
    started = time.process_time()
    for number in range(COUNT):
        work(number)
    return (time.process_time() - started) / COUNT * 1e6


def measure(lb: QuicLb, size: int) -> list[float]:
    here, there = _Host(lb, 1), _Host(lb, 2)
    for one, other in ((here, there), (there, here)):
        one.forwarder.use_peers({other.server_id: other.socket.address})
    cid = QuicLbLayout(lb, there.server_id, SECRET).make(3, os.urandom(lb.nonce_length))
    data = (b"\x43" + cid).ljust(size, b"\0")
    decode = microseconds(lambda number: here.ids.of(data, 1, here.ids.length))
    forward = microseconds(lambda number: here.forwarder.forward(data, here.path, 0))
    sealer, routing = FleetSealer(SECRET), ROUTING_FIRST + cid[1:]
    port = int(here.socket.address[1])
    body = Forward(time.time(), 0, here.server_id, 0, "127.0.0.1", port, CLIENT, data)
    messages = [sealer.seal(Kind.FORWARD, routing, body) for _ in range(COUNT)]
    paths: list[FourTuple] = []
    there.forwarder.deliver = lambda data, path, ecn: paths.append(path) if not paths else None
    take = microseconds(lambda number: there.forwarder.forward(messages[number], there.path, 0))
    (path,) = paths
    relay = microseconds(lambda number: path.socket.send([data], path))
    for host in (here, there):
        host.forwarder.close()
        host.socket.close()
    return [decode, forward, take, relay]


def main() -> None:
    print("| server IDs | bytes | decode | forward | take | relay |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, lb in ENCODINGS.items():
        for size in (100, 1200):
            figures = " | ".join(f"{value:.1f}" for value in measure(lb, size))
            print(f"| {name} | {size} | {figures} |")


if __name__ == "__main__":
    main()
