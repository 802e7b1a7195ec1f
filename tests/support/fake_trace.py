"""A capture written by hand, for the checks of the interop harness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from interop.runner.packet import Packet
from interop.runner.trace import Datagram, Direction, Kind, QuicPacket
from tests.support.frames import udp_frame

CLIENT, SERVER = ("193.167.0.100", 5000), ("193.167.100.100", 443)


def quic(kind: Kind, payload: int = 0, **fields: str | list[str]) -> QuicPacket:
    """A packet; `quic__scid="01"` stands for the field quic.scid."""
    made = {
        name.replace("__", "."): [value] if isinstance(value, str) else value
        for name, value in fields.items()
    }
    return QuicPacket(kind, payload, made)


@dataclass
class FakeTrace:
    """Answers as Trace does, for the datagrams added to it."""

    items: list[Datagram] = field(default_factory=list)

    def client(
        self,
        *packets: QuicPacket,
        size: int = 1208,
        ecn: int | None = 0,
        source: tuple[str, int] = CLIENT,
        to: tuple[str, int] = SERVER,
    ) -> FakeTrace:
        return self._add(source, to, size, ecn, packets)

    def server(
        self,
        *packets: QuicPacket,
        size: int = 1208,
        ecn: int | None = 0,
        source: tuple[str, int] = SERVER,
        to: tuple[str, int] = CLIENT,
    ) -> FakeTrace:
        return self._add(source, to, size, ecn, packets)

    def _add(
        self,
        source: tuple[str, int],
        to: tuple[str, int],
        size: int,
        ecn: int | None,
        packets: tuple[QuicPacket, ...],
    ) -> FakeTrace:
        self.items.append(Datagram(len(self.items) + 1, source, to, size, ecn, list(packets)))
        return self

    def datagrams(self, condition: str) -> list[Datagram]:
        items = self.items
        for direction, end in ((Direction.FROM_CLIENT, 1), (Direction.FROM_SERVER, 0)):
            if direction.value in condition:
                items = [i for i in items if (i.source, i.destination)[end][0] == SERVER[0]]
        return items

    def sent(self, direction: Direction, *kinds: Kind) -> list[Datagram]:
        items = self.datagrams(direction.value)
        return [i for i in items if not kinds or {p.kind for p in i.packets} & set(kinds)]

    def packets(self, direction: Direction, kind: Kind) -> list[QuicPacket]:
        return [packet for item in self.sent(direction, kind) for packet in item.of(kind)]

    def frames(self, numbers: list[int]) -> list[Datagram]:
        return [item for item in self.items if item.frame in numbers]

    def scan(self) -> Iterator[tuple[int, Packet]]:
        for item in self.items:
            yield item.frame, Packet(udp_frame(*item.source, *item.destination, b"x"))


@dataclass
class FakeEvidence:
    """Answers as Evidence does."""

    directory: Path
    key_log: Path | None = None
    left: FakeTrace = field(default_factory=FakeTrace)
    right: FakeTrace = field(default_factory=FakeTrace)

    @property
    def www(self) -> Path:
        return self.directory / "www"

    @property
    def downloads(self) -> Path:
        return self.directory / "downloads"
