"""Two connections of ours over a faulty path that depends on a seed alone, and all the facts that
they tell: the same with either core.

Run as a program, it prints the facts of each seed among its arguments as a line of JSON.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
import sys
from pathlib import Path
from typing import Any

from aioquic.quic.events import StreamDataReceived
from aioquic.tls import CipherSuite

from quicedge.quic.connection import Connection
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.tls import CertificateStore, load_certificate
from quicedge.telemetry.trace import Trace
from tests.support.quicpair import (
    CLIENT_ADDRESS,
    SECRET,
    SERVER_ADDRESS,
    client_configuration,
    server_configuration,
)

SUITES = [
    CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]  # fmt: skip
SIZES = (0, 1, 300, 5000, 60_000, 150_000)
PIECES = (1, 10, 700, 1023, 1024, 4000, 30_000)
"""Bytes that the server writes at once."""
STREAMS = 4
SECONDS = 90.0
STEPS = 4000


class Lines:
    """A sink of a trace that keeps everything."""

    name = drop_reason = ""

    def __init__(self) -> None:
        self.text = ""

    def write(self, lines: bytes) -> bool:
        self.text += lines.decode()
        return True

    def close(self) -> None:
        pass


class SeededIds(ConnectionIdIssuer):
    def __init__(self, rng: random.Random) -> None:
        super().__init__(secret=SECRET)
        self._rng = rng

    def new(self) -> bytes:
        return self._codec.make(self._slot, self._rng.randbytes(self._codec.entropy))


class FaultyPath:
    """Both directions: datagrams that are lost, late, repeated, damaged, cut short and marked."""

    def __init__(self, rng: random.Random, now: float) -> None:
        self.rng = random.Random(rng.random())
        self.loss = rng.choice((0.0, 0.01, 0.05, 0.15))
        self.duplicates = rng.choice((0.0, 0.05))
        self.damage = rng.choice((0.0, 0.01))
        self.marks = rng.choice((0.0, 0.02))
        self.jitter = rng.choice((0.0, 0.002, 0.02))
        self.delay = rng.choice((0.001, 0.02, 0.1))
        self.tick = rng.choice((0.0005, 0.002))
        """Datagrams arrive together, in runs."""
        self.rate = rng.choice((2e6, 2e7))
        self.free_at = [now, now]
        self.wire: list[tuple[float, int, int, bytes, int]] = []
        self.order = 0

    def send(self, direction: int, data: bytes, ecn: int, now: float) -> None:
        rng = self.rng
        start = max(now, self.free_at[direction])
        if (start - now) * self.rate > 150_000 or rng.random() < self.loss:
            return
        self.free_at[direction] = start + len(data) / self.rate
        if ecn and rng.random() < self.marks:
            ecn = 3
        for _ in range(2 if rng.random() < self.duplicates else 1):
            arrived = data
            if rng.random() < self.damage:
                changed = bytearray(data)
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                arrived = bytes(changed[: rng.choice((len(data), 1 + rng.randrange(len(data))))])
            at = self.free_at[direction] + self.delay + rng.random() * self.jitter
            at = (int(at / self.tick) + 1) * self.tick
            heapq.heappush(self.wire, (at, self.order, direction, arrived, ecn))
            self.order += 1

    def arrived(self, now: float) -> list[tuple[int, int, list[bytes]]]:
        """Runs of datagrams of one direction and mark."""
        runs: list[tuple[int, int, list[bytes]]] = []
        while self.wire and self.wire[0][0] <= now:
            _, _, direction, data, ecn = heapq.heappop(self.wire)
            if not runs or runs[-1][:2] != (direction, ecn):
                runs.append((direction, ecn, []))
            runs[-1][2].append(data)
        return runs


class Seeded:
    """One connection from its first packet to its end."""

    def __init__(self, seed: int, certificates: CertificateStore) -> None:
        rng = random.Random(seed)
        self.rng = random.Random(rng.random())
        self.now = 1000.0
        options: dict[str, Any] = {
            "cipher_suites": [rng.choice(SUITES)],
            "congestion_control_algorithm": rng.choice(("cubic", "reno", "bbr")),
        }
        random_client, random_server = (random.Random(rng.random()) for _ in range(2))
        client = Connection(
            configuration=client_configuration(**options), now=self.now,
            random=random_client.randbytes, connection_ids=SeededIds(random_client),
        )  # fmt: skip
        client.connect(SERVER_ADDRESS, self.now)
        server = Connection(
            configuration=server_configuration(**options), now=self.now,
            certificates=certificates, random=random_server.randbytes,
            connection_ids=SeededIds(random_server),
            original_destination_connection_id=client.original_destination_connection_id,
        )  # fmt: skip
        self.ends = client, server
        self.traces = [Lines(), Lines()] if rng.random() < 0.4 else []
        for end, lines in zip(self.ends, self.traces, strict=False):
            end.start_trace(
                Trace(lines, level="extra", group_id="aa", started=self.now, wall_clock=1.7e9)
            )
        self.path = FaultyPath(rng, self.now)
        self.from_client = CLIENT_ADDRESS
        self.sizes = [(rng.choice(SIZES), rng.choice(SIZES)) for _ in range(STREAMS)]
        self.received: dict[str, Any] = {}
        self.complete: set[str] = set()
        self.answered: set[int] = set()
        self.events: list[str] = []

    def run(self) -> dict[str, Any]:
        client = self.ends[0]
        end = self.now + SECONDS
        asked = False
        self._transmit()
        for _ in range(STEPS):
            moments = [at for side in self.ends if (at := side.poll_timeout()) is not None]
            moments += [item[0] for item in self.path.wire[:1]]
            if not moments or min(moments) > end:
                break
            self.now = max(self.now, min(moments)) + 1e-6
            for direction, ecn, run in self.path.arrived(self.now):
                receiver = self.ends[1 - direction]
                address = SERVER_ADDRESS if direction else self.from_client
                at = 0
                while at < len(run):
                    at += receiver.receive_run(run, at, address, self.now, ecn)
            for side in self.ends:
                timer = side.poll_timeout()
                if timer is not None and timer <= self.now:
                    side.handle_timeout(self.now)
            if client.handshake_complete and client.is_alive and not asked:
                asked = True
                for size, _ in self.sizes:
                    stream_id = client.get_next_available_stream_id()
                    client.send_stream_data(stream_id, self.rng.randbytes(size), True)
            if asked and self.rng.random() < 0.02:
                self._disturb()
            self._transmit()
            if len(self.complete) == 2 * STREAMS and self.rng.random() < 0.05:
                client.close(0)
        return self._facts()

    def _disturb(self) -> None:
        client, server = self.ends
        side = self.rng.choice(self.ends)
        if not (side.is_alive and side.handshake_confirmed):
            return
        match self.rng.randrange(6):
            case 0:
                side.request_key_update()
            case 1:
                self.from_client = f"192.0.2.{self.rng.randrange(1, 200)}", 6000
            case 2:
                client.change_connection_id()
            case 3:
                side.send_ping(1)
            case 4:
                server.renew_connection_ids()
            case 5 if self.rng.random() < 0.2:
                stream_id = 4 * self.rng.randrange(STREAMS)
                if stream_id in self.answered:
                    server.reset_stream(stream_id, 7)

    def _transmit(self) -> None:
        for direction, side in enumerate(self.ends):
            self._deliver(side)
            for run in side.poll_transmit(self.now):
                for at in range(0, len(run.data), run.segment):
                    data = run.data[at : at + run.segment]
                    self.path.send(direction, data, run.ecn, self.now)
            self._deliver(side)

    def _deliver(self, side: Connection) -> None:
        client, server = self.ends
        name = "client" if side is client else "server"
        while (event := side.poll_event()) is not None:
            if not isinstance(event, StreamDataReceived):
                self.events.append(f"{name}: {type(event).__name__}")
                continue
            stream_id = event.stream_id
            key = f"{name} {stream_id}"
            self.received.setdefault(key, hashlib.sha256()).update(event.data)
            if event.data and side.is_alive:
                side.consume(stream_id, len(event.data))
            if event.end_stream:
                self.complete.add(key)
            if side is server and stream_id not in self.answered and server.is_alive:
                self.answered.add(stream_id)
                self._answer(stream_id)

    def _answer(self, stream_id: int) -> None:
        server = self.ends[1]
        left = self.sizes[stream_id // 4][1]
        while left:
            piece = min(left, self.rng.choice(PIECES))
            server.send_stream_data(stream_id, self.rng.randbytes(piece))
            left -= piece
        server.send_stream_data(stream_id, b"", True)

    def _facts(self) -> dict[str, Any]:
        return {
            "ended at": round(self.now, 6),
            "received": {key: value.hexdigest() for key, value in self.received.items()},
            "complete": sorted(self.complete),
            "events": self.events,
            "client": _facts_of(self.ends[0], self.now),
            "server": _facts_of(self.ends[1], self.now),
            "qlog": [lines.text for lines in self.traces],
        }


def _facts_of(connection: Connection, now: float) -> dict[str, Any]:
    counters, recovery = connection.counters, connection.recovery
    found = {name: getattr(counters, name) for name in counters.__slots__}
    found["packets_dropped"] = {str(key): n for key, n in counters.packets_dropped.items()}
    return {
        **found,
        "packets_lost": recovery.packets_lost,
        "bytes_lost": recovery.bytes_lost,
        "spurious": recovery.packets_spuriously_lost,
        "timeouts": recovery.pto_total,
        "delivered": recovery.delivered,
        "delivery_rate": recovery.delivery_rate,
        "rtt": recovery.rtt.smoothed,
        "window": recovery.controller.congestion_window,
        "bytes_resent": connection.streams.bytes_resent,
        "key_updates": connection.handshake.phases.updates,
        "ending": str(connection.ending),
        "limits": [str(connection.limits.sent(now)), str(connection.limits.received(now))],
    }


def main(certificate: str, key: str, *seeds: str) -> None:
    certificates = CertificateStore([load_certificate(Path(certificate), Path(key))])
    for seed in seeds:
        print(json.dumps(Seeded(int(seed), certificates).run(), default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
